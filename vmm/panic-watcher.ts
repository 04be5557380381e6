// Sees a Linux panic in the console output, the one sign of it that every kernel gives:
// "Kernel panic - not syncing". It only names the outcome; the guest could print it for fun.

const SIGN = Buffer.from("Kernel panic - not syncing");

export class PanicWatcher {
  #seen = false;
  /** The end of the output so far, in case the sign is cut in two. */
  #tail = Buffer.alloc(0);

  get sawPanic(): boolean {
    return this.#seen;
  }

  see(bytes: Uint8Array): void {
    if (this.#seen) return;
    const text = Buffer.concat([this.#tail, bytes]);
    this.#seen = text.includes(SIGN);
    this.#tail = Buffer.from(text.subarray(Math.max(0, text.length - SIGN.length + 1)));
  }
}
