// Output of a virtio console on its way to the host: copies, because the device shows parts of
// guest memory, bounded by what the host takes.

/** `bytes` that may wait here before the guest has to wait. */
const HIGH_BYTES = 64 * 1024;

export class ConsoleOutput {
  #pieces: Uint8Array[] = [];
  #length = 0;

  /** True if the guest should wait. */
  get isHigh(): boolean {
    return this.#length >= HIGH_BYTES;
  }

  push(bytes: Uint8Array): void {
    this.#pieces.push(bytes.slice());
    this.#length += bytes.length;
  }

  /** Everything that waits, in one piece; may be empty. */
  take(): Uint8Array {
    const [only, ...more] = this.#pieces;
    const all = more.length === 0 ? (only ?? new Uint8Array()) : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#length = 0;
    return all;
  }
}
