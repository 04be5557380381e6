// Files: reads and writes between them and memory by address, ranges, flushes.
import { EINTR, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy, libc } from "./koffi.js";

const nativeIsatty = lazy("isatty", "int", ["int"]);
const nativePread = lazy("pread", "int64_t", ["int", "int64_t", "size_t", "int64_t"]);
const nativePreadv = lazy("preadv", "int64_t", ["int", "void *", "int", "int64_t"]);
const nativePreadv2 = lazy("preadv2", "int64_t", ["int", "void *", "int", "int64_t", "int"]);
const nativePwritev = lazy("pwritev", "int64_t", ["int", "void *", "int", "int64_t"]);
const nativeReadv = lazy("readv", "int64_t", ["int", "void *", "int"]);
const nativeWritev = lazy("writev", "int64_t", ["int", "void *", "int"]);
const nativeFdatasync = lazy("fdatasync", "int", ["int"]);
const FALLOCATE_PARAMETERS = ["int", "int", "int64_t", "int64_t"];
const nativeFallocate = lazy("fallocate", "int", FALLOCATE_PARAMETERS);
let allocateElsewhere: ReturnType<typeof libc.func> | undefined;

/** Whether `fd` is a terminal. process.stdin.isTTY tells too, but loads Node's streams and sockets for it: 4 ms. */
export function isTerminal(fd: number): boolean {
  return nativeIsatty(fd) === 1;
}

/** Reads up to `length` bytes of a file at `position` to the address; the count read, 0 at its end. */
export function preadInto(fd: number, address: number, length: number, position: number): number {
  let count = nativePread(fd, address, length, position);
  if (count < 0 && koffi.errno() === EINTR) count = uninterrupted(() => nativePread(fd, address, length, position));
  if (count < 0) throw systemCallError("pread");
  return count;
}

/**
 * The same on a thread of Node's pool: the count read, or -1. The memory must stay mapped until it settles.
 */
export function preadIntoLater(fd: number, address: number, length: number, position: number): Promise<number> {
  const pread = libc.func("pread", "int64_t", ["int", "int64_t", "size_t", "int64_t"]);
  return new Promise((resolve) => {
    // SAFETY: the caller has checked the range, and unmaps it only after this has settled.
    pread.async(fd, address, length, position, (_error, count) => {
      resolve(count);
    });
  });
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

const nativeLseek = lazy("lseek", "int64_t", ["int", "int64_t", "int"]);
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;

/** The next piece of a file that is no hole, from `position` on; undefined if nothing but a hole follows. */
export function nextData(fd: number, position: number): { readonly start: number; readonly end: number } | undefined {
  const start = nativeLseek(fd, position, SEEK_DATA);
  if (start < 0) {
    if (koffi.errno() === ENXIO) return undefined;
    throw systemCallError("lseek");
  }
  const end = nativeLseek(fd, start, SEEK_HOLE);
  if (end < 0) throw systemCallError("lseek");
  return { start, end };
}

const nativeSendfile = lazy("sendfile", "int64_t", ["int", "int", "void *", "size_t"]);
const SEEK_SET = 0;
const EINVAL = 22;
const ENOSYS = 38;
const sourcePosition = new BigInt64Array(1);

/**
 * Copies up to `length` bytes from one file to another, at the same position of both: the count, 0 at the first one's end,
 * or undefined if the host's kernel cannot do it with such files. The second one's own position is lost.
 */
export function sendFile(to: number, from: number, position: number, length: number): number | undefined {
  if (nativeLseek(to, position, SEEK_SET) < 0) throw systemCallError("lseek");
  sourcePosition[0] = BigInt(position);
  // SAFETY: eight bytes of a module-level buffer, read and written during the call only.
  const count = uninterrupted(() => nativeSendfile(to, from, sourcePosition, length));
  if (count >= 0) return count;
  const errno = koffi.errno();
  if (errno === EINVAL || errno === ENOSYS) return undefined;
  throw systemCallError("sendfile");
}

/** Brings what was written to the medium: 0 or the positive errno. */
export function fdatasyncRaw(fd: number): number {
  return uninterrupted(() => nativeFdatasync(fd)) < 0 ? koffi.errno() : 0;
}

const SIZEOF_STATFS = 120;
const nativeFstatfs = lazy("fstatfs", "int", ["int", "void *"]);

/** The magic number of the file system that an open file is on: statfs(2). Node's asks by a path. Throws SystemCallError. */
export function fileSystemOf(fd: number): number {
  const about = new BigInt64Array(SIZEOF_STATFS / 8);
  // SAFETY: struct statfs, used during this call only.
  if (uninterrupted(() => nativeFstatfs(fd, about)) < 0) throw systemCallError("fstatfs");
  return Number(about[0]);
}

export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** Changes how a range of a file is allocated: 0 or the positive errno. */
export function fallocateRaw(fd: number, mode: number, position: number, length: number): number {
  return nativeFallocate(fd, mode, position, length) < 0 ? koffi.errno() : 0;
}

/** Takes a range of a file away: it reads as zeroes then. Throws SystemCallError. */
export function punchHole(fd: number, position: number, length: number): void {
  const errno = fallocateRaw(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, position, length);
  if (errno !== 0) throw systemCallError("fallocate", errno);
}

/** At a time in this process: they run on the few threads that also serve Node's reads and writes. */
const MAX_ALLOCATIONS = 2;
const waitingAllocations: (() => void)[] = [];
let allocations = 0;

/** As fallocateRaw, on another thread, in its turn; the descriptor stays open until `done`. */
export function fallocateLater(
  fd: number,
  mode: number,
  position: number,
  length: number,
  done: (error: number) => void,
): void {
  if (allocations === MAX_ALLOCATIONS) {
    waitingAllocations.push(() => fallocateLater(fd, mode, position, length, done));
    return;
  }
  allocations++;
  allocateElsewhere ??= libc.func("fallocate", "int", FALLOCATE_PARAMETERS);
  allocateElsewhere.async(fd, mode, position, length, (_error, result) => {
    const error = result < 0 ? koffi.errno() : 0;
    allocations--;
    waitingAllocations.shift()?.();
    done(error);
  });
}
