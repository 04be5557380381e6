// Ranges of a disk that the guest gives up or wants zeroed: what the file system can do without writing,
// and zeroes where it cannot. fallocate(2). Each in two ways: at once, on a thread that may wait, and
// elsewhere, because even a hole may have to wait until what was written there has reached the medium.
import { write } from "node:fs";
import { EINTR, ENODEV, ENOSYS, ENOTTY, EOPNOTSUPP } from "../../sys/errno.js";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocateLater,
  fallocateRaw,
  IOV_MAX,
  IoVectors,
  pwritevRaw,
} from "../../sys/files.js";
import { mmapAnonymous } from "../../sys/memory.js";

/** errno of a file system or device that knows no holes. */
const UNSUPPORTED: readonly number[] = [EOPNOTSUPP, ENOTTY, ENOSYS, ENODEV];
/** `bytes` of zeroes kept to write where a file system cannot make them ... */
const ZEROES_LENGTH = 64 * 1024;
/** ... and, by another thread, in one call. */
const ZEROES_ELSEWHERE_LENGTH = 1024 * 1024;

/** Our own error number: the file has become shorter than the disk. */
export const TRUNCATED = -1;

/** Makes a call elsewhere; `done` gets the positive errno, or 0, and the count of bytes. */
export type CallElsewhere = (
  start: (called: (error: NodeJS.ErrnoException | number | null, count: number) => void) => void,
  done: (error: number, count: number) => void,
) => void;

export class DiskRanges {
  readonly #fd: number;
  readonly #call: CallElsewhere;
  /** fallocate modes that this file has refused: not tried again. */
  readonly #refused = new Set<number>();
  #vectors: IoVectors | undefined;
  #zeroesAddress: number | undefined;
  #zeroes: Uint8Array | undefined;

  constructor(fd: number, call: CallElsewhere) {
    this.#fd = fd;
    this.#call = call;
  }

  /** Advice: a file system that cannot follow it keeps the bytes, which is allowed. */
  discard(position: number, length: number): number {
    for (const mode of this.#modes(true, false)) {
      const error = this.#allocate(mode, position, length);
      if (!this.#isRefusal(mode, error)) return error;
    }
    return 0;
  }

  writeZeroes(position: number, length: number, mayUnmap: boolean): number {
    for (const mode of this.#modes(mayUnmap, true)) {
      const error = this.#allocate(mode, position, length);
      if (!this.#isRefusal(mode, error)) return error;
    }
    return this.#store(position, length);
  }

  discardLater(position: number, length: number, done: (error: number) => void): void {
    const [mode] = this.#modes(true, false);
    if (mode === undefined) done(0);
    else {
      this.#allocateLater(mode, position, length, (error) => {
        if (this.#isRefusal(mode, error)) this.discardLater(position, length, done);
        else done(error);
      });
    }
  }

  writeZeroesLater(position: number, length: number, mayUnmap: boolean, done: (error: number) => void): void {
    const [mode] = this.#modes(mayUnmap, true);
    if (mode === undefined) this.#storeLater(position, length, done);
    else {
      this.#allocateLater(mode, position, length, (error) => {
        if (this.#isRefusal(mode, error)) this.writeZeroesLater(position, length, mayUnmap, done);
        else done(error);
      });
    }
  }

  /** What is left to be tried, the best first. */
  #modes(mayPunch: boolean, mayZero: boolean): number[] {
    const modes = [...(mayPunch ? [FALLOC_FL_PUNCH_HOLE] : []), ...(mayZero ? [FALLOC_FL_ZERO_RANGE] : [])];
    return modes.filter((mode) => !this.#refused.has(mode));
  }

  #isRefusal(mode: number, error: number): boolean {
    const isRefusal = UNSUPPORTED.includes(error);
    if (isRefusal) this.#refused.add(mode);
    return isRefusal;
  }

  #allocate(mode: number, position: number, length: number): number {
    let error: number;
    do error = fallocateRaw(this.#fd, mode | FALLOC_FL_KEEP_SIZE, position, length);
    while (error === EINTR);
    return error;
  }

  #allocateLater(mode: number, position: number, length: number, done: (error: number) => void): void {
    this.#call(
      (called) => {
        fallocateLater(this.#fd, mode | FALLOC_FL_KEEP_SIZE, position, length, (error) => called(error, 0));
      },
      (error) => {
        if (error === EINTR) this.#allocateLater(mode, position, length, done);
        else done(error);
      },
    );
  }

  #store(position: number, length: number): number {
    this.#zeroesAddress ??= mmapAnonymous(ZEROES_LENGTH);
    const vectors = (this.#vectors ??= new IoVectors(IOV_MAX));
    for (let done = 0; done < length;) {
      vectors.clear();
      for (let left = length - done; left > 0 && vectors.count < IOV_MAX;) {
        const piece = Math.min(left, ZEROES_LENGTH);
        // SAFETY: ZEROES_LENGTH bytes, mapped for the life of the process and only ever read.
        vectors.append(this.#zeroesAddress, piece);
        left -= piece;
      }
      const moved = pwritevRaw(this.#fd, vectors, position + done);
      if (moved > 0) done += moved;
      else if (moved === 0) return TRUNCATED;
      else if (moved !== -EINTR) return -moved;
    }
    return 0;
  }

  #storeLater(position: number, length: number, done: (error: number) => void): void {
    const zeroes = (this.#zeroes ??= new Uint8Array(ZEROES_ELSEWHERE_LENGTH));
    const from = (start: number): void => {
      const piece = Math.min(length - start, zeroes.length);
      this.#call(
        (called) => write(this.#fd, zeroes, 0, piece, position + start, called),
        (error, count) => {
          if (error !== 0 || start + count === length) done(error);
          else if (count === 0) done(TRUNCATED);
          else from(start + count);
        },
      );
    };
    from(0);
  }
}
