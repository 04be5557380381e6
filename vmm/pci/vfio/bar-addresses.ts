// Where ranges of assigned devices lie when a guest begins: as a firmware would place them. The guest may move them.
import type { AssignedBar } from "../../../devices/pci/assigned-layout.js";
import type { PciWindow } from "../root-bus.js";

/** Ranges of 64 bits that are larger do not take the room of the others below 4 GiB. */
const LARGE = 64 * 2 ** 20;

export class BarAddresses {
  readonly #low: Room;
  readonly #high: Room;

  /** The first `taken` bytes of the low window are others'. */
  constructor(low: PciWindow, high: PciWindow, taken: number) {
    this.#low = new Room(low, taken);
    this.#high = new Room(high, 0);
  }

  /** In the order of the ranges; 0 for one that does not fit, which the guest's kernel may place. */
  place(bars: readonly AssignedBar[]): number[] {
    return bars.map(({ length, is64Bit }) =>
      is64Bit && length > LARGE
        ? (this.#high.take(length) ?? 0)
        : (this.#low.take(length) ?? (is64Bit ? this.#high.take(length) : undefined) ?? 0),
    );
  }
}

class Room {
  readonly #end: number;
  #next: number;

  constructor({ gpa, length }: PciWindow, taken: number) {
    this.#next = gpa + taken;
    this.#end = gpa + length;
  }

  /** Aligned to its length, a power of two. */
  take(length: number): number | undefined {
    const at = Math.ceil(this.#next / length) * length;
    if (at + length > this.#end) return undefined;
    this.#next = at + length;
    return at;
  }
}
