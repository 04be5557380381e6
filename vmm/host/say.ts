// What vmlet itself says, a line at a time on standard error. Not through process.stderr: it is a
// stream, and making one on a pipe costs a start 5 ms.
import { writeSync } from "node:fs";

const STDERR = 2;
const RETRY_MS = 5;
const RETRIES = 200;

/** Writes `vmlet: LINE`. `returns` where a terminal is raw and needs a carriage return. */
export function say(line: string, { returns = false } = {}): void {
  let rest: Uint8Array = Buffer.from(`vmlet: ${line}${returns ? "\r" : ""}\n`);
  for (let tries = 0; rest.length > 0 && tries < RETRIES; tries++) {
    try {
      rest = rest.subarray(writeSync(STDERR, rest));
    } catch (error) {
      // Closed, or nobody reads it: there is no one to tell.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return;
      // A pipe or terminal that some other program has made non-blocking.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
}
