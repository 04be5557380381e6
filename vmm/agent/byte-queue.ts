// Bytes that have come and that nobody has taken yet.

/** From here on a piece is kept as it is; what is smaller is copied together. */
const LARGE = 4096;
const TAIL_BYTES = 8192;

/**
 * A queue of bytes whose memory is in proportion to what it holds, however small the pieces are and whatever they are
 * views of: a guest that sends one byte a frame does not have the host keep the 64 KiB around each.
 */
export class ByteQueue {
  #pieces: Buffer[] = [];
  #length = 0;
  /** The last piece, if small ones are added to it; and its length so far. */
  #tail: Buffer | undefined;
  #tailLength = 0;

  get length(): number {
    return this.#length;
  }

  /** Keeps a view of `bytes` if they are many and most of the memory that they are part of. */
  push(bytes: Buffer): void {
    this.#length += bytes.length;
    if (bytes.length >= LARGE) {
      this.#closeTail();
      this.#pieces.push(bytes.length * 2 >= bytes.buffer.byteLength ? bytes : copyOf(bytes));
      return;
    }
    let rest = bytes;
    while (rest.length > 0) {
      this.#tail ??= Buffer.allocUnsafeSlow(TAIL_BYTES);
      const count = rest.copy(this.#tail, this.#tailLength);
      this.#tailLength += count;
      rest = rest.subarray(count);
      if (this.#tailLength === TAIL_BYTES) this.#closeTail();
    }
  }

  /** Some of the bytes, the first ones, or undefined if there are none. */
  shift(): Buffer | undefined {
    if (this.#pieces.length === 0) this.#closeTail();
    const piece = this.#pieces.shift();
    if (piece !== undefined) this.#length -= piece.length;
    return piece;
  }

  clear(): void {
    this.#pieces = [];
    this.#length = 0;
    this.#tail = undefined;
    this.#tailLength = 0;
  }

  #closeTail(): void {
    if (this.#tail === undefined) return;
    this.#pieces.push(this.#tail.subarray(0, this.#tailLength));
    this.#tail = undefined;
    this.#tailLength = 0;
  }
}

function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
