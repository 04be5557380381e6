// The host's side of a disk, as the block device wants it: all positions and lengths are in bytes,
// inside the disk and multiples of 512. Nothing here throws: 0 is success, anything else an error
// number that `explain` knows.
import type { Segments } from "../segments.js";

export interface BlockBackend {
  /** `bytes`, a multiple of 512. */
  readonly size: number;
  readonly isReadOnly: boolean;
  /** Fills all of `data` from the disk. */
  read(position: number, data: Segments): number;
  /** Stores all of `data` on the disk. */
  write(position: number, data: Segments): number;
  /** Makes all that was written survive a crash of the host. */
  flush(): number;
  /** The guest does not need these bytes any more; what they read afterwards does not matter. */
  discard(position: number, length: number): number;
  /** These bytes read 0 from now on; the space may be given back if `mayUnmap`. */
  writeZeroes(position: number, length: number, mayUnmap: boolean): number;
  /** An error number in words, such as "ENOSPC". */
  explain(error: number): string;
}
