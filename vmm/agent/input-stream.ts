// The content that the host sends on a stream, as a Writable of Node's.
import { Writable } from "node:stream";

/** What it writes to. */
export interface InputTarget {
  /** How many of `bytes` have been sent. */
  write(bytes: Uint8Array): number;
  end(): void;
  /** Instead of `end`, where the content was not all. */
  abandon?(): void;
}

/** As much as a window. */
const BUFFER_BYTES = 65_536;

export class InputStream extends Writable {
  readonly #target: InputTarget;
  /** What has not been sent of the chunk under way, and whom to tell. */
  #rest: Uint8Array | undefined;
  #isFinal = false;
  #callback: ((error?: Error | null) => void) | undefined;

  readonly #finished: Promise<unknown> | undefined;

  /** With `finished`, the stream has finished once that is resolved, and fails with it. */
  constructor(target: InputTarget, finished?: Promise<unknown>) {
    super({ highWaterMark: BUFFER_BYTES, decodeStrings: true });
    this.#target = target;
    this.#finished = finished;
    // As of outputs: the guest decides whether this fails.
    this.on("error", () => undefined);
  }

  /** More may be sent. */
  resumeWriting(): void {
    const rest = this.#rest;
    const callback = this.#callback;
    if (rest === undefined || callback === undefined) return;
    const sent = this.#target.write(rest);
    if (sent < rest.length) {
      this.#rest = rest.subarray(sent);
      return;
    }
    this.#rest = undefined;
    this.#callback = undefined;
    callback();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#rest = chunk;
    this.#callback = callback;
    this.resumeWriting();
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#isFinal = true;
    this.#target.end();
    if (this.#finished === undefined) callback();
    else
      this.#finished.then(() => {
        callback();
      }, callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    // A reader of a pipe hears of the end, however the writer has gone.
    if (!this.#isFinal) (this.#target.abandon ?? this.#target.end)();
    const waiting = this.#callback;
    this.#rest = undefined;
    this.#callback = undefined;
    waiting?.(error);
    callback(error);
  }
}
