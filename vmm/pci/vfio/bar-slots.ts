// Memory of an assigned device as memory slots of KVM: what the guest reads and writes there goes to the device, without an exit.
// They follow the range that the guest moves.
import type { VmFd } from "../../kvm/vm-fd.js";
import type { MappedSpan } from "./device.js";

interface Slot {
  readonly number: number;
  readonly span: MappedSpan;
}

/** Numbers of slots that nobody else has. */
export class SlotNumbers {
  #next: number;

  constructor(first: number) {
    this.#next = first;
  }

  take(): number {
    return this.#next++;
  }
}

export class BarSlots {
  readonly #vm: Pick<VmFd, "setMemoryRegion">;
  /** By base address register. */
  readonly #slots: ReadonlyMap<number, readonly Slot[]>;
  readonly #placed = new Map<number, number>();

  constructor(
    vm: Pick<VmFd, "setMemoryRegion">,
    spans: ReadonlyMap<number, readonly MappedSpan[]>,
    numbers: SlotNumbers,
  ) {
    this.#vm = vm;
    this.#slots = new Map(
      [...spans].map(([bar, list]) => [bar, list.map((span) => ({ number: numbers.take(), span }))]),
    );
  }

  /** The guest has put the range there, or taken it away. */
  placed(bar: number, gpa: number | undefined): void {
    const slots = this.#slots.get(bar) ?? [];
    const before = this.#placed.get(bar);
    if (before !== undefined) this.#set(slots, before, true);
    if (gpa === undefined) this.#placed.delete(bar);
    else {
      this.#set(slots, gpa, false);
      this.#placed.set(bar, gpa);
    }
  }

  #set(slots: readonly Slot[], gpa: number, isGone: boolean): void {
    for (const { number, span } of slots) {
      const { offset, length, hva } = span;
      this.#vm.setMemoryRegion(number, { gpa: gpa + offset, size: isGone ? 0 : length, hva });
    }
  }
}
