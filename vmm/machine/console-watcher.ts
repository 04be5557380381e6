// Sees in the console output what Linux says about its own end: a panic, or a halt in place of
// a power-off. It only names the outcome; the guest could print either for fun.

const PANIC = Buffer.from("Kernel panic - not syncing");
/** What a kernel without a way to power off prints before it stops its processors. */
const HALT = Buffer.from("reboot: System halted");
const LONGEST = Math.max(PANIC.length, HALT.length);

export class ConsoleWatcher {
  #sawPanic = false;
  #sawHalt = false;
  /** The end of the output so far, in case a sign is cut in two. */
  #tail = Buffer.alloc(0);

  get sawPanic(): boolean {
    return this.#sawPanic;
  }

  get sawHalt(): boolean {
    return this.#sawHalt;
  }

  see(bytes: Uint8Array): void {
    const text = Buffer.concat([this.#tail, bytes]);
    this.#sawPanic ||= text.includes(PANIC);
    this.#sawHalt ||= text.includes(HALT);
    this.#tail = Buffer.from(text.subarray(Math.max(0, text.length - LONGEST + 1)));
  }
}
