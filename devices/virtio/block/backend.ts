// The host's side of a disk, as the block device wants it: all positions and lengths are in bytes,
// inside the disk and multiples of 512. Nothing here throws: 0 is success, anything else an error
// number that `explain` knows.
import type { Segments } from "../segments.js";

/** Not done, because it would have had to wait for the medium: to be asked again by `readLater` and so on. */
export const BACKEND_BUSY = -2;

export interface BlockBackend {
  /** `bytes`, a multiple of 512. */
  readonly size: number;
  readonly isReadonly: boolean;
  /** Fills all of `data` from the disk; or BACKEND_BUSY, with some of it filled. */
  read(position: number, data: Segments): number;
  /** Stores all of `data` on the disk; or BACKEND_BUSY. */
  write(position: number, data: Segments): number;
  /** Makes all that was written survive a crash of the host; or BACKEND_BUSY. */
  flush(): number;
  /** Reads elsewhere than on this thread; `done` comes in a later turn, with bytes that are good during the call. */
  readLater(position: number, length: number, done: (error: number, bytes: Uint8Array) => void): void;
  /** Writes elsewhere; the bytes stay as they are until `done`. */
  writeLater(position: number, bytes: Uint8Array, done: (error: number) => void): void;
  /** Flushes elsewhere what was written, and answered, before this call. */
  flushLater(done: (error: number) => void): void;
  /** The guest does not need these bytes any more; what they read afterwards does not matter. Or BACKEND_BUSY. */
  discard(position: number, length: number): number;
  /** These bytes read 0 from now on; the space may be given back if `mayUnmap`. Or BACKEND_BUSY. */
  writeZeroes(position: number, length: number, mayUnmap: boolean): number;
  /** Both elsewhere. */
  discardLater(position: number, length: number, done: (error: number) => void): void;
  writeZeroesLater(position: number, length: number, mayUnmap: boolean, done: (error: number) => void): void;
  /** An error number in words, such as "ENOSPC". */
  explain(error: number): string;
}
