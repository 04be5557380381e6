// Standard input that is a file or pipe, and what every source of input is. It is read without process.stdin: that is a
// stream, and loading what it is made of takes 10 ms, in the lab 300, while the guest runs.
import { read } from "node:fs";

const STDIN = 0;
const BUFFER_SIZE = 65_536;
const RETRY_MS = 20;

export interface InputSource {
  /** From now on bytes come, until `pause`. */
  open(take: (bytes: Uint8Array) => void, end: () => void): void;
  pause(): void;
  resume(): void;
  /** Stops this process, as Ctrl-Z does where the guest does not take it; only for a terminal. */
  suspend?(): void;
  /** No more calls; a terminal is as it was before `open`. */
  close(): void;
}

/** Standard input that is no terminal. After `close`, a read may still be under way on another thread. */
export class FileInput implements InputSource {
  readonly #buffer = Buffer.allocUnsafe(BUFFER_SIZE);
  #take: (bytes: Uint8Array) => void = () => undefined;
  #end: () => void = () => undefined;
  #isReading = false;
  #isPaused = false;
  #isClosed = false;

  open(take: (bytes: Uint8Array) => void, end: () => void): void {
    this.#take = take;
    this.#end = end;
    this.#read();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#read();
  }

  close(): void {
    this.#isClosed = true;
  }

  #read(): void {
    if (this.#isReading || this.#isPaused || this.#isClosed) return;
    this.#isReading = true;
    read(STDIN, this.#buffer, 0, BUFFER_SIZE, null, (error, count) => {
      this.#isReading = false;
      if (this.#isClosed) return;
      if (error?.code === "EAGAIN") {
        // A pipe that some other program has made non-blocking.
        setTimeout(() => {
          this.#read();
        }, RETRY_MS);
      } else if (error !== null || count === 0) {
        // Standard input may be closed or a directory: then there is no input.
        this.#isClosed = true;
        this.#end();
      } else {
        this.#take(Buffer.from(this.#buffer.subarray(0, count)));
        this.#read();
      }
    });
  }
}
