// System calls that Node does not offer, bound once over koffi.
// Addresses and lengths are numbers (int64_t): koffi passes them fastest, and a
// user-space address fits 2^53. Every failure is a SystemCallError-like KvmIoctlError.
import { getSystemErrorName } from "node:util";
import { KvmIoctlError } from "../errors.js";
import { cureFor } from "./cures.js";
import { koffi, libc, type NativeFunction, type PollHandle } from "./koffi.js";

export const EINTR = 4;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENODEV = 19;
export const ENOTTY = 25;
export const EPIPE = 32;
export const ENOSYS = 38;
export const EOPNOTSUPP = 95;

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MADV_HUGEPAGE = 14;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

/** Builds the error for the call that has just failed. */
export function systemCallError(request: string, errno: number = koffi.errno()): KvmIoctlError {
  let name: string;
  try {
    name = getSystemErrorName(-errno);
  } catch {
    name = `errno ${String(errno)}`;
  }
  return new KvmIoctlError(request, errno, name, cureFor(request, name));
}

/**
 * Binds a C function at its first call: a start-up that does not need it does not pay for it. Six
 * arguments, because a rest array would be made anew at each call until the code is hot; koffi takes
 * what the prototype names.
 */
function lazy(name: string, result: string, parameters: readonly string[]): NativeFunction {
  let bound: NativeFunction | undefined;
  return (a, b, c, d, e, f) => (bound ??= libc.func(name, result, parameters))(a, b, c, d, e, f);
}

// Two prototypes instead of a variadic one: 339 ns against 451 ns a call.
const ioctlNumber = libc.func("ioctl", "int", ["int", "ulong", "int64_t"]);
const ioctlBuffer = lazy("ioctl", "int", ["int", "ulong", "void *"]);
const nativeMmap = lazy("mmap", "int64_t", ["int64_t", "size_t", "int", "int", "int", "int64_t"]);
const nativeMunmap = lazy("munmap", "int", ["int64_t", "size_t"]);
const nativeMadvise = lazy("madvise", "int", ["int64_t", "size_t", "int"]);
const nativeIsatty = lazy("isatty", "int", ["int"]);
const nativeEventfd = lazy("eventfd", "int", ["uint", "int"]);
const nativeWrite = lazy("write", "int64_t", ["int", "void *", "size_t"]);
const nativeRead = lazy("read", "int64_t", ["int", "void *", "size_t"]);
const nativePread = lazy("pread", "int64_t", ["int", "int64_t", "size_t", "int64_t"]);

const nativePreadv = lazy("preadv", "int64_t", ["int", "void *", "int", "int64_t"]);
const nativePreadv2 = lazy("preadv2", "int64_t", ["int", "void *", "int", "int64_t", "int"]);
const nativePwritev = lazy("pwritev", "int64_t", ["int", "void *", "int", "int64_t"]);
const nativeReadv = lazy("readv", "int64_t", ["int", "void *", "int"]);
const nativeWritev = lazy("writev", "int64_t", ["int", "void *", "int"]);
const nativeFcntl = lazy("fcntl", "int", ["int", "int", "void *"]);
const nativeFcntlNumber = lazy("fcntl", "int", ["int", "int", "int64_t"]);
const nativeSocketpair = lazy("socketpair", "int", ["int", "int", "int", "void *"]);
const nativeSocket = lazy("socket", "int", ["int", "int", "int"]);
const nativeFdatasync = lazy("fdatasync", "int", ["int"]);
const nativeFallocate = lazy("fallocate", "int", ["int", "int", "int64_t", "int64_t"]);

/** ioctl with an integer argument; throws an error that carries `name`. */
export function ioctl(fd: number, name: string, request: number, argument = 0): number {
  const result = ioctlNumber(fd, request, argument);
  if (result < 0) throw systemCallError(name);
  return result;
}

/** ioctl on a structure; `structure` must have the size that `request` encodes, or what it counts. */
export function ioctlStruct(fd: number, name: string, request: number, structure: ArrayBufferView): number {
  // SAFETY: the caller's buffer outlives this synchronous call; its size is checked by the wrappers in vmm/kvm/.
  const result = ioctlBuffer(fd, request, structure);
  if (result < 0) throw systemCallError(name);
  return result;
}

/** KVM_RUN and other hot requests: 0 or more, or the negative errno; never throws. */
export function ioctlRaw(fd: number, request: number, argument: number): number {
  const result = ioctlNumber(fd, request, argument);
  return result < 0 ? -koffi.errno() : result;
}

/** Zeroed private memory that costs nothing until it is touched; address in bytes. */
export function mmapAnonymous(length: number): number {
  const address = nativeMmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address === -1) throw systemCallError("mmap");
  return address;
}

/** Shared mapping of a file descriptor, such as a vCPU's kvm_run. */
export function mmapFile(fd: number, length: number): number {
  const address = nativeMmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address === -1) throw systemCallError("mmap");
  return address;
}

/** Asks for huge pages where the kernel has them; a kernel without refuses, which costs nothing but time. */
export function preferHugePages(address: number, length: number): void {
  nativeMadvise(address, length, MADV_HUGEPAGE);
}

/** Memory for machine code that is written by this process. */
export function mmapExecutable(length: number): number {
  const protection = PROT_READ | PROT_WRITE | PROT_EXEC;
  const address = nativeMmap(0, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address === -1) throw systemCallError("mmap");
  return address;
}

export function munmap(address: number, length: number): void {
  if (nativeMunmap(address, length) < 0) throw systemCallError("munmap");
}

/**
 * An ArrayBuffer over memory that this process has mapped. It owns nothing: after munmap any
 * access is a segmentation fault, so whoever unmaps drops every view first. At most 4 GiB (Node 20).
 */
export function viewMemory(address: number, length: number): ArrayBuffer {
  return koffi.view(address, length);
}

/** Whether `fd` is a terminal. process.stdin.isTTY tells too, but loads Node's streams and sockets for it: 4 ms. */
export function isTerminal(fd: number): boolean {
  return nativeIsatty(fd) === 1;
}

/** Non-blocking eventfd. */
export function eventfd(): number {
  const fd = nativeEventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) throw systemCallError("eventfd");
  return fd;
}

const one = new BigUint64Array([1n]);
const drained = new BigUint64Array(1);

/** Adds 1 to an eventfd: one wake-up, or one pulse of the interrupt that an irqfd stands for. */
export function signalEventfd(fd: number): void {
  // SAFETY: 8 bytes of a module-level buffer, read during this call only.
  nativeWrite(fd, one, 8);
}

/** Resets an eventfd's counter; nothing happens if it is 0 already. */
export function drainEventfd(fd: number): void {
  // SAFETY: 8 bytes of a module-level buffer, written during this call only.
  nativeRead(fd, drained, 8);
}

/** Calls back on the event loop when `fd` is readable. Keep the handle: once collected, it is silent. */
export function pollReadable(fd: number, callback: () => void): PollHandle {
  return koffi.node.poll(fd, { readable: true }, callback);
}

/** Reads up to `length` bytes of a file at `position` to the address; the count read, 0 at its end. */
export function preadInto(fd: number, address: number, length: number, position: number): number {
  const count = nativePread(fd, address, length, position);
  if (count < 0) throw systemCallError("pread");
  return count;
}

/** Largest `count` of struct iovec that the kernel takes. */
export const IOV_MAX = 1024;

/**
 * Host memory ranges as preadv(2) wants them: struct iovec, 16 bytes each. Addresses go in as two
 * halves, because a number above 2^31 handed to koffi would be a heap object a call.
 */
export class IoVectors {
  readonly words: Uint32Array;
  count = 0;

  constructor(capacity: number) {
    this.words = new Uint32Array(4 * capacity);
  }

  clear(): void {
    this.count = 0;
  }

  append(address: number, length: number): void {
    const word = 4 * this.count++;
    this.words[word] = address >>> 0;
    this.words[word + 1] = address / 2 ** 32;
    this.words[word + 2] = length >>> 0;
    this.words[word + 3] = length / 2 ** 32;
  }
}

/** Reads a file at `position` into memory: bytes read, 0 at its end, or the negative errno. */
export function preadvRaw(fd: number, vectors: IoVectors, position: number): number {
  // SAFETY: the vectors' addresses are the caller's, who has checked them; used during this call only.
  const count = nativePreadv(fd, vectors.words, vectors.count, position);
  return count < 0 ? -koffi.errno() : count;
}

/** preadv2(2): EAGAIN instead of waiting for the medium; EOPNOTSUPP where the file system cannot tell. */
const RWF_NOWAIT = 8;

/** As preadvRaw, for what the host's page cache holds. */
export function preadvCachedRaw(fd: number, vectors: IoVectors, position: number): number {
  // SAFETY: as in preadvRaw.
  const count = nativePreadv2(fd, vectors.words, vectors.count, position, RWF_NOWAIT);
  return count < 0 ? -koffi.errno() : count;
}

/** Writes memory to a file at `position`: bytes written, or the negative errno. */
export function pwritevRaw(fd: number, vectors: IoVectors, position: number): number {
  // SAFETY: as in preadvRaw.
  const count = nativePwritev(fd, vectors.words, vectors.count, position);
  return count < 0 ? -koffi.errno() : count;
}

/** Reads a file or device that has no position, without waiting if it is so opened: as preadvRaw. */
export function readvRaw(fd: number, vectors: IoVectors): number {
  // SAFETY: as in preadvRaw.
  const count = nativeReadv(fd, vectors.words, vectors.count);
  return count < 0 ? -koffi.errno() : count;
}

/** Writes to a file or device that has no position: as pwritevRaw. */
export function writevRaw(fd: number, vectors: IoVectors): number {
  // SAFETY: as in preadvRaw.
  const count = nativeWritev(fd, vectors.words, vectors.count);
  return count < 0 ? -koffi.errno() : count;
}

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

/** A socket that network interfaces are configured through; it carries nothing. */
export function interfaceSocket(): number {
  const fd = nativeSocket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemCallError("socket");
  return fd;
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

/** Two ends of a stream; the first one never waits. Both go when this process starts another program. */
export function streamPair(): readonly [own: number, other: number] {
  const pair = new Int32Array(2);
  // SAFETY: two ints of this buffer, written during this call only.
  if (nativeSocketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) throw systemCallError("socketpair");
  const [own = -1, other = -1] = pair;
  if (nativeFcntlNumber(own, F_SETFL, O_NONBLOCK) < 0) throw systemCallError("F_SETFL");
  return [own, other];
}

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock of one byte, from the file's start (SEEK_SET); l_pid must be 0 for these locks. */
function flockOf(type: number, byte: number): DataView {
  const flock = new DataView(new ArrayBuffer(32));
  flock.setInt16(0, type, true);
  flock.setBigInt64(8, BigInt(byte), true);
  flock.setBigInt64(16, 1n, true);
  return flock;
}

/** A shared lock on one byte of an open file, for as long as this opening of it lives. */
export function lockByteShared(fd: number, byte: number): void {
  // SAFETY: the size of struct flock, used during this call only; so below.
  if (nativeFcntl(fd, F_OFD_SETLK, flockOf(F_RDLCK, byte)) < 0) throw systemCallError("F_OFD_SETLK");
}

/** Whether another opening of the file has any lock on this byte. */
export function isByteLocked(fd: number, byte: number): boolean {
  const flock = flockOf(F_WRLCK, byte);
  if (nativeFcntl(fd, F_OFD_GETLK, flock) < 0) throw systemCallError("F_OFD_GETLK");
  return flock.getInt16(0, true) !== F_UNLCK;
}

export const MADV_DONTNEED = 4;

/** Says what becomes of pages of this process: 0 or the positive errno. */
export function madviseRaw(address: number, length: number, advice: number): number {
  return nativeMadvise(address, length, advice) < 0 ? koffi.errno() : 0;
}

/** Brings what was written to the medium: 0 or the positive errno. */
export function fdatasyncRaw(fd: number): number {
  return nativeFdatasync(fd) < 0 ? koffi.errno() : 0;
}

export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** Changes how a range of a file is allocated: 0 or the positive errno. */
export function fallocateRaw(fd: number, mode: number, position: number, length: number): number {
  return nativeFallocate(fd, mode, position, length) < 0 ? koffi.errno() : 0;
}

export type { PollHandle };
