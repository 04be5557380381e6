// Memory of this process: mmap(2), munmap(2), madvise(2). Addresses and lengths are numbers (int64_t):
// koffi passes them fastest, and a user-space address fits 2^53.
import { EAGAIN, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_HUGETLB = 0x40000;
/** linux/mman.h: log2 of the page's size, behind MAP_HUGE_SHIFT. */
const MAP_HUGE_2MB = 21 << 26;
const MADV_HUGEPAGE = 14;
const nativeMmap = lazy("mmap", "int64_t", ["int64_t", "size_t", "int", "int", "int", "int64_t"]);
const nativeMunmap = lazy("munmap", "int", ["int64_t", "size_t"]);
const nativeMadvise = lazy("madvise", "int", ["int64_t", "size_t", "int"]);

/** mmap(2); EAGAIN is a file that is locked for a moment. */
function map(length: number, protection: number, flags: number, fd: number, offset = 0): number {
  const call = (): number => nativeMmap(0, length, protection, flags, fd, offset);
  let address = uninterrupted(call);
  if (address === -1 && koffi.errno() === EAGAIN) address = uninterrupted(call);
  if (address === -1) throw systemCallError("mmap");
  return address;
}

/** Zeroed private memory that costs nothing until it is touched; address in bytes. */
export function mmapAnonymous(length: number): number {
  return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

/** The same in pages of 2 MiB that the host keeps for this, all of them reserved. */
export function mmapHugePages(length: number): number {
  return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1);
}

/** Shared mapping of a file descriptor, such as a vCPU's kvm_run. */
export function mmapFile(fd: number, length: number, offset = 0): number {
  return map(length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
}

/**
 * A file as memory: pages come from it when they are touched, and one that is written becomes this mapping's own. The
 * file must not become shorter meanwhile: a touch behind its end is SIGBUS.
 */
export function mmapPrivateFile(fd: number, length: number, offset: number): number {
  return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, offset);
}

/** The same in place of what is mapped at the address, whole pages of this process's own. */
export function mmapPrivateFileAt(address: number, length: number, fd: number, offset: number): void {
  const flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
  const call = (): number => nativeMmap(address, length, PROT_READ | PROT_WRITE, flags, fd, offset);
  // SAFETY: the caller has mapped this range, and nobody uses it yet.
  let mapped = uninterrupted(call);
  if (mapped === -1 && koffi.errno() === EAGAIN) mapped = uninterrupted(call);
  if (mapped === -1) throw systemCallError("mmap");
}

/** Asks for huge pages; a kernel without them refuses, which only costs time. */
export function preferHugePages(address: number, length: number): void {
  nativeMadvise(address, length, MADV_HUGEPAGE);
}

/** Memory for machine code that is written by this process. */
export function mmapExecutable(length: number): number {
  return map(length, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

export function munmap(address: number, length: number): void {
  if (nativeMunmap(address, length) < 0) throw systemCallError("munmap");
}

/**
 * An ArrayBuffer over memory that this process has mapped. It owns nothing: after munmap any
 * access is a segmentation fault, so drop every view before you unmap. At most 4 GiB (Node 20).
 */
export function viewMemory(address: number, length: number): ArrayBuffer {
  return koffi.view(address, length);
}

export const MADV_DONTNEED = 4;
/** The same for memory that other processes may have mapped, too: it is gone for all of them. */
export const MADV_REMOVE = 9;

/** Says what becomes of pages of this process: 0 or the positive errno. */
export function madviseRaw(address: number, length: number, advice: number): number {
  return uninterrupted(() => nativeMadvise(address, length, advice)) < 0 ? koffi.errno() : 0;
}
