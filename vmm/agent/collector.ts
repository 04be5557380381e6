// The first bytes of an output, as many as the caller wants to keep.
import { ByteQueue } from "./byte-queue.js";

export class Collector {
  readonly #limit: number;
  readonly #queue = new ByteQueue();
  #isTruncated = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** There was more than was kept. */
  get isTruncated(): boolean {
    return this.#isTruncated;
  }

  push(bytes: Buffer): void {
    const room = this.#limit - this.#queue.length;
    if (bytes.length > room) this.#isTruncated = true;
    this.#queue.push(bytes.length > room ? bytes.subarray(0, room) : bytes);
  }

  /** All that was kept; the collector is empty then. */
  take(): Buffer {
    const pieces: Buffer[] = [];
    for (let piece = this.#queue.shift(); piece !== undefined; piece = this.#queue.shift()) pieces.push(piece);
    return Buffer.concat(pieces);
  }
}
