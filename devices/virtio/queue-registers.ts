// The registers behind QueueSel for one queue, and the check of all that a driver has written
// there before a Queue is made of it. virtio 1.2 §4.2.2 and the alignments of §2.7.
import type { GuestMemory } from "../contracts.js";
import {
  VIRTQ_AVAIL_ALIGN,
  VIRTQ_AVAIL_ELEMENT_SIZE,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_SIZE,
  VIRTQ_EVENT_SIZE,
  VIRTQ_RING_HEADER_SIZE,
  VIRTQ_USED_ALIGN,
  VIRTQ_USED_ELEMENT_SIZE,
} from "./constants.js";
import type { QueueAddresses } from "./queue.js";
import { hex64, StateError, type State, type StateReader } from "../state.js";

/** A 64-bit register in two halves. */
interface Halves {
  low: number;
  high: number;
}

export class QueueRegisters {
  readonly maxSize: number;
  /** QueueNum. */
  size = 0;
  isReady = false;
  readonly descriptor: Halves = { low: 0, high: 0 };
  readonly available: Halves = { low: 0, high: 0 };
  readonly used: Halves = { low: 0, high: 0 };

  constructor(maxSize: number) {
    this.maxSize = maxSize;
  }

  reset(): void {
    this.size = 0;
    this.isReady = false;
    for (const halves of [this.descriptor, this.available, this.used]) {
      halves.low = 0;
      halves.high = 0;
    }
  }

  addresses(): QueueAddresses {
    return {
      size: this.size,
      descriptorGpa: join(this.descriptor),
      availableGpa: join(this.available),
      usedGpa: join(this.used),
    };
  }

  save(): State {
    return {
      size: this.size,
      isReady: this.isReady,
      descriptor: saveHalves(this.descriptor),
      available: saveHalves(this.available),
      used: saveHalves(this.used),
    };
  }

  /** `memory` is what a ready queue must lie in. */
  restore(state: StateReader, memory: GuestMemory): void {
    state.only(["size", "isReady", "descriptor", "available", "used"]);
    this.size = state.integer("size", { minimum: 0, maximum: 0xffff_ffff });
    this.isReady = state.boolean("isReady");
    restoreHalves(this.descriptor, state.hex64("descriptor"));
    restoreHalves(this.available, state.hex64("available"));
    restoreHalves(this.used, state.hex64("used"));
    const problem = this.isReady ? this.problem(memory) : undefined;
    if (problem !== undefined) throw new StateError(state.path, `is a queue that cannot be: ${problem}`);
  }

  /** What is wrong with the queue as it stands, or undefined. */
  problem(memory: GuestMemory): string | undefined {
    const { size, maxSize } = this;
    if (size === 0 || size > maxSize || (size & (size - 1)) !== 0) {
      return `Queue of ${String(size)} descriptors is not a power of two up to ${String(maxSize)}`;
    }
    const { descriptorGpa, availableGpa, usedGpa } = this.addresses();
    const availableLength = VIRTQ_RING_HEADER_SIZE + size * VIRTQ_AVAIL_ELEMENT_SIZE + VIRTQ_EVENT_SIZE;
    const usedLength = VIRTQ_RING_HEADER_SIZE + size * VIRTQ_USED_ELEMENT_SIZE + VIRTQ_EVENT_SIZE;
    const areas = [
      ["Descriptor table", descriptorGpa, size * VIRTQ_DESC_SIZE, VIRTQ_DESC_ALIGN],
      ["Available ring", availableGpa, availableLength, VIRTQ_AVAIL_ALIGN],
      ["Used ring", usedGpa, usedLength, VIRTQ_USED_ALIGN],
    ] as const;
    for (const [area, gpa, length, alignment] of areas) {
      const at = `${area} at 0x${gpa.toString(16)}`;
      if (gpa % alignment !== 0) return `${at} is not aligned to ${String(alignment)} bytes`;
      if (!memory.contains(gpa, length)) return `${at}, ${String(length)} bytes, is not in RAM`;
    }
    return undefined;
  }
}

function saveHalves({ low, high }: Halves): string {
  return hex64((BigInt(high) << 32n) | BigInt(low));
}

function restoreHalves(halves: Halves, value: bigint): void {
  halves.low = Number(value & 0xffff_ffffn);
  halves.high = Number(value >> 32n);
}

/** Inexact from 2^53, where there is no RAM whatever the lower bits say. */
function join({ low, high }: Halves): number {
  return low + high * 2 ** 32;
}
