// A guest's output on its way to standard output. If the reader goes, the guest ends, as SIGPIPE ends a
// program. If a disk is full, the guest goes on: its output is lost until there is room again, and vmlet
// says so.
import { write } from "node:fs";
import { errnoText } from "./errno-text.js";

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
  #lostBytes = 0;
  #hasVanished = false;

  constructor(fd: number, events: OutputEvents) {
    this.#fd = fd;
    this.#events = events;
  }

  /** `bytes` that could not be written, but for those to a reader that has gone. */
  get lostBytes(): number {
    return this.#lostBytes;
  }

  /** Writes all bytes, or gives them up; `done` in any case. One call at a time. */
  write(bytes: Uint8Array, done: () => void): void {
    if (this.#hasVanished) {
      done();
      return;
    }
    write(this.#fd, bytes, 0, bytes.length, null, (error, count) => {
      const code = error?.code;
      if (error === null || code === "EINTR") {
        const written = error === null ? count : 0;
        if (written < bytes.length) this.write(bytes.subarray(written), done);
        else done();
      } else if (code === "EAGAIN") {
        // A terminal that some other program has made non-blocking.
        setTimeout(() => this.write(bytes, done), RETRY_MS);
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

/** The same for a sender that does not wait: one write after the other. */
export class OutputQueue {
  readonly #writer: OutputWriter;
  readonly #waiting: { readonly bytes: Uint8Array; readonly done: (() => void) | undefined }[] = [];
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
    const next = this.#waiting.shift();
    this.#isWriting = next !== undefined;
    if (next !== undefined) {
      this.#writer.write(next.bytes, () => {
        next.done?.();
        this.#next();
      });
    } else for (const resolve of this.#onEmpty.splice(0)) resolve();
  }
}
