// A virtio-mmio device as a vCPU thread serves it: notifications on the spot through a shared word,
// everything else by asking the owner of the devices. With KVM's help, frequent accesses never get here:
// reads are loads from memory (register-pages.ts), and ioevents.ts has the frequent writes.
// virtio 1.2 §4.2.2. DESIGN.md, "Threads".
import type { AccessSize, BusDevice, SharedWords } from "../../devices/contracts.js";
import { VIRTIO_MMIO_QUEUE_NOTIFY } from "../../devices/virtio/constants.js";
import type { RegisterCalls } from "./register-calls.js";

// Words of a device.
/** Bit q: queue q has been notified and the owner has not looked yet. */
export const VIRTIO_PENDING_WORD = 0;
export const VIRTIO_PORT_WORDS = 1;

/** As many as PENDING has bits; no device here has more. */
export const MAX_NOTIFIED_QUEUES = 32;

export class VirtioPort implements BusDevice {
  readonly name: string;
  readonly #device: number;
  readonly #words: SharedWords;
  readonly #calls: RegisterCalls;
  readonly #wakeOwner: () => void;

  /** `device` counts the devices; `words` are the device's VIRTIO_PORT_WORDS. */
  constructor(device: number, words: SharedWords, calls: RegisterCalls, wakeOwner: () => void) {
    this.name = `virtio${String(device)}`;
    this.#device = device;
    this.#words = words;
    this.#calls = calls;
    this.#wakeOwner = wakeOwner;
  }

  read(offset: number, size: AccessSize): number {
    return this.#calls.read(this.#device, offset, size);
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset === VIRTIO_MMIO_QUEUE_NOTIFY && size === 4) {
      if (value >= MAX_NOTIFIED_QUEUES) return;
      Atomics.or(this.#words, VIRTIO_PENDING_WORD, 1 << value);
      this.#wakeOwner();
    } else {
      this.#calls.write(this.#device, offset, size, value);
    }
  }
}

/** A range in which only the owner answers, PCI's, as a vCPU thread serves it. */
export class OwnerPort implements BusDevice {
  readonly name: string;
  readonly #range: number;
  readonly #calls: RegisterCalls;

  /** `range` counts the ranges. */
  constructor(range: number, calls: RegisterCalls) {
    this.name = `pci-range${String(range)}`;
    this.#range = range;
    this.#calls = calls;
  }

  read(offset: number, size: AccessSize): number {
    return this.#calls.read(this.#range, offset, size);
  }

  write(offset: number, size: AccessSize, value: number): void {
    this.#calls.write(this.#range, offset, size, value);
  }
}
