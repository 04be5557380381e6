// A guest's output on its way to standard output. If the reader goes, the guest ends, as SIGPIPE ends a
// program. If a disk is full, the guest goes on: its output is lost until there is room again, and vmlet
// says so.
import { write } from "node:fs";
import { errnoText } from "./errno-text.js";
import { PipeEnd } from "./pipe-end.js";

const RETRY_MS = 5;

export interface OutputEvents {
  /** Nobody reads any more. */
  readonly vanished: () => void;
  /** The first bytes are lost. */
  readonly failed: (why: string) => void;
}

export class OutputWriter {
  readonly #fd: number;
  readonly #events: OutputEvents;
  /** Who reads a pipe mostly keeps up: no thread of the pool is asked then, whose wake-ups cost more than the bytes. */
  readonly #pipe: PipeEnd | undefined;
  #lostBytes = 0;
  #hasVanished = false;

  constructor(fd: number, events: OutputEvents) {
    this.#fd = fd;
    this.#events = events;
    this.#pipe = PipeEnd.of(fd);
  }

  /** `bytes` that could not be written, but for those to a reader that has gone. */
  get lostBytes(): number {
    return this.#lostBytes;
  }

  /** Writes all bytes, or gives them up; `done` in any case, maybe before this returns. One call at a time. */
  write(bytes: Uint8Array, done: () => void): void {
    const written = this.#hasVanished ? bytes.length : (this.#pipe?.write(bytes) ?? 0);
    if (written === bytes.length) done();
    else this.#writeWaiting(written === 0 ? bytes : bytes.subarray(written), done);
  }

  #writeWaiting(bytes: Uint8Array, done: () => void): void {
    write(this.#fd, bytes, 0, bytes.length, null, (error, count) => {
      const code = error?.code;
      if (error === null || code === "EINTR") {
        const written = error === null ? count : 0;
        if (written < bytes.length) this.#writeWaiting(bytes.subarray(written), done);
        else done();
      } else if (code === "EAGAIN") {
        // A terminal that some other program has made non-blocking.
        setTimeout(() => this.#writeWaiting(bytes, done), RETRY_MS);
      } else {
        this.#lose(code ?? String(error), bytes.length);
        done();
      }
    });
  }

  #lose(code: string, length: number): void {
    if (code === "EPIPE") {
      this.#hasVanished = true;
      this.#events.vanished();
      return;
    }
    if (this.#lostBytes === 0) this.#events.failed(errnoText(code));
    this.#lostBytes += length;
  }
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly done: (() => void) | undefined;
}

/** The same for a sender that does not wait: one write after the other. */
export class OutputQueue {
  readonly #writer: OutputWriter;
  readonly #waiting: Waiting[] = [];
  #isWriting = false;
  #onEmpty: (() => void)[] = [];

  constructor(writer: OutputWriter) {
    this.#writer = writer;
  }

  /** Calls `done` once it is written or given up. */
  push(bytes: Uint8Array, done?: () => void): void {
    this.#waiting.push({ bytes, done });
    if (!this.#isWriting) this.#next();
  }

  /** Resolves once everything is written or given up. */
  async drained(): Promise<void> {
    if (this.#isWriting) await new Promise<void>((resolve) => this.#onEmpty.push(resolve));
  }

  #next(): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      this.#isWriting = true;
      if (!this.#isWritten(next)) return;
    }
    this.#isWriting = false;
    for (const resolve of this.#onEmpty.splice(0)) resolve();
  }

  /** False if it goes on later. */
  #isWritten({ bytes, done }: Waiting): boolean {
    let isInside = true as boolean;
    let isDone = false as boolean;
    this.#writer.write(bytes, () => {
      isDone = true;
      done?.();
      // Inside, the loop in `#next` goes on.
      if (!isInside) this.#next();
    });
    isInside = false;
    return isDone;
  }
}
