// The writing end of a pipe, opened once more so that a write that finds it full does not wait: standard output itself is shared
// with whoever else has it, and has to stay as it is.
import { constants, fstatSync, openSync, writeSync } from "node:fs";

export class PipeEnd {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined for what is no pipe, or another user's, which must not be opened. */
  static of(fd: number): PipeEnd | undefined {
    try {
      if (!fstatSync(fd).isFIFO()) return undefined;
      return new PipeEnd(openSync(`/proc/self/fd/${String(fd)}`, constants.O_WRONLY | constants.O_NONBLOCK));
    } catch {
      // Whoever writes to `fd` itself meets the same error, or none.
      return undefined;
    }
  }

  /** How many of `bytes` went in at once. Whatever stands in the way of the rest is seen by a write that waits. */
  write(bytes: Uint8Array): number {
    try {
      return writeSync(this.#fd, bytes);
    } catch {
      return 0;
    }
  }
}
