// Input that waits for the guest: a ring of bytes that refuses what does not fit, so that the caller who
// has the input stops reading it.

export class InputBuffer {
  readonly #bytes: Uint8Array;
  #head = 0;
  #length = 0;

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
  }

  get capacity(): number {
    return this.#bytes.length;
  }

  /** `bytes` that wait. */
  get length(): number {
    return this.#length;
  }

  /** Takes as many bytes as fit; returns how many. */
  push(source: Uint8Array): number {
    const ring = this.#bytes;
    const count = Math.min(source.length, ring.length - this.#length);
    const start = (this.#head + this.#length) % ring.length;
    const first = Math.min(count, ring.length - start);
    ring.set(source.subarray(0, first), start);
    ring.set(source.subarray(first, count), 0);
    this.#length += count;
    return count;
  }

  /** A copy of all that waits. */
  peek(): Uint8Array {
    const ring = this.#bytes;
    const copy = new Uint8Array(this.#length);
    const first = Math.min(copy.length, ring.length - this.#head);
    copy.set(ring.subarray(this.#head, this.#head + first));
    copy.set(ring.subarray(0, copy.length - first), first);
    return copy;
  }

  /** Moves the oldest bytes to `target`, as many as there are and fit; returns how many. */
  shift(target: Uint8Array): number {
    const ring = this.#bytes;
    const count = Math.min(target.length, this.#length);
    const first = Math.min(count, ring.length - this.#head);
    target.set(ring.subarray(this.#head, this.#head + first));
    target.set(ring.subarray(0, count - first), first);
    this.#head = (this.#head + count) % ring.length;
    this.#length -= count;
    return count;
  }
}
