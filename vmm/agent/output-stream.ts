// An output of a stream as a Readable of Node's: what the reader has not taken counts against the window.
import { Readable } from "node:stream";
import { ByteQueue } from "./byte-queue.js";

/** Smaller pieces go through the queue, which keeps no more than their bytes. */
const DIRECT = 4096;

export class OutputStream extends Readable {
  readonly #queue = new ByteQueue();
  readonly #onTaken: (count: number) => void;
  readonly #onDiscard: () => void;
  #isWanted = false;
  #hasEnded = false;

  /** `onTaken` hears of what the reader has taken, `onDiscard` that it wants no more. */
  constructor(onTaken: (count: number) => void, onDiscard: () => void) {
    // One piece at a time: the queue behind it is the buffer, and it is bounded by the window.
    super({ highWaterMark: 1 });
    this.#onTaken = onTaken;
    this.#onDiscard = onDiscard;
    // The guest decides whether this fails: a caller that does not listen must not end with it. Iterators and pipelines hear of it.
    this.on("error", () => undefined);
  }

  /** What has come. */
  receive(bytes: Buffer): void {
    if (this.destroyed) {
      this.#onTaken(bytes.length);
      return;
    }
    if (this.#isWanted && this.#queue.length === 0 && bytes.length >= DIRECT) {
      this.#give(bytes);
      return;
    }
    this.#queue.push(bytes);
    this.#deliver();
  }

  /** All has come. */
  finish(): void {
    this.#hasEnded = true;
    this.#deliver();
  }

  override _read(): void {
    this.#isWanted = true;
    this.#deliver();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const left = this.#queue.length;
    this.#queue.clear();
    this.#onDiscard();
    if (left > 0) this.#onTaken(left);
    callback(error);
  }

  #deliver(): void {
    if (!this.#isWanted) return;
    const piece = this.#queue.shift();
    if (piece !== undefined) this.#give(piece);
    else if (this.#hasEnded && !this.destroyed) {
      this.#isWanted = false;
      this.push(null);
    }
  }

  #give(piece: Buffer): void {
    this.#isWanted = false;
    this.#onTaken(piece.length);
    this.push(piece);
  }
}
