// What vmlet itself says: its messages a line at a time on standard error, what a command was asked for on
// standard output. Not through process.stdout and process.stderr: making such a stream costs a start
// 5 ms, and one whose reader has gone is an exception in the middle of something else.
import { writeSync } from "node:fs";

const STDOUT = 1;
const STDERR = 2;
const RETRY_MS = 5;
/** A slow reader may hold up the output of a command, but not a message. */
const MESSAGE_RETRIES = 200;

/** Writes all of it, or returns the error that prevented that. */
function writeAll(fd: number, bytes: Uint8Array, retries: number): NodeJS.ErrnoException | undefined {
  let rest = bytes;
  for (let tries = 0; rest.length > 0;) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const failure = error as NodeJS.ErrnoException;
      if (failure.code === "EINTR") continue;
      if (failure.code !== "EAGAIN" || ++tries > retries) return failure;
      // A pipe or terminal that some other program has made non-blocking.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
  return undefined;
}

/** Writes `vmlet: LINE`. `returns` where a terminal is raw and needs a carriage return. */
export function say(line: string, { returns = false } = {}): void {
  sayRaw(`vmlet: ${line}${returns ? "\r" : ""}\n`);
}

/** The same as it stands. If standard error is closed, or nobody reads it, there is no one to tell. */
export function sayRaw(text: string): void {
  writeAll(STDERR, Buffer.from(text), MESSAGE_RETRIES);
}

/** Standard output does not take what the command was asked for. */
export class OutputError extends Error {
  /** The reader has gone, which is no error: `vmlet doctor | head -1`. */
  readonly isBrokenPipe: boolean;

  constructor(cause: NodeJS.ErrnoException) {
    super(`Standard output cannot be written: ${cause.message}`, { cause });
    this.name = "OutputError";
    this.isBrokenPipe = cause.code === "EPIPE";
  }
}

/** Writes to standard output; throws OutputError. */
export function print(text: string): void {
  printBytes(STDOUT, Buffer.from(text));
}

/** The same to either output, byte by byte. */
export function printBytes(fd: 1 | 2, bytes: Uint8Array): void {
  const failure = writeAll(fd, bytes, Infinity);
  if (failure !== undefined) throw new OutputError(failure);
}
