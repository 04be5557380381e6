// MSI: one message, or up to 32 that differ in the lowest bits of their data, in a capability of configuration space. Shown without
// masks of vectors. PCI Local Bus 3.0 §6.8.1.
import {
  PCI_MSI_ADDRESS_HI,
  PCI_MSI_ADDRESS_LO,
  PCI_MSI_DATA_32,
  PCI_MSI_DATA_64,
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_64BIT,
  PCI_MSI_FLAGS_ENABLE,
  PCI_MSI_FLAGS_QSIZE,
} from "./constants.js";
import { isSameMessage, type MsiMessage } from "./msix.js";

/** The registers of a function's capability, by their offsets in configuration space. */
export interface MsiRegisters {
  readU16(offset: number): number;
  readU32(offset: number): number;
}

export interface MsiOptions {
  /** That the device has: 1, 2, 4, 8, 16 or 32. */
  readonly vectors: number;
  /** Sends a message now. */
  readonly send: (message: MsiMessage) => void;
  /** The vector's `message` may be another one. */
  readonly changed?: (vector: number) => void;
}

export class Msi {
  readonly #options: MsiOptions;
  #isEnabled = false;
  #vectors = 1;
  #first: MsiMessage = { addressLow: 0, addressHigh: 0, data: 0 };

  constructor(options: MsiOptions) {
    this.#options = options;
  }

  get isEnabled(): boolean {
    return this.#isEnabled;
  }

  /** Those that the guest lets the device use. */
  get vectors(): number {
    return this.#vectors;
  }

  /** What the vector sends now; undefined for one that is not there, or while disabled. */
  message(vector: number): MsiMessage | undefined {
    if (!this.#isEnabled || vector >= this.#vectors) return undefined;
    const { addressLow, addressHigh, data } = this.#first;
    return { addressLow, addressHigh, data: ((data & ~(this.#vectors - 1)) | vector) >>> 0 };
  }

  /** Sends the vector's message, if it has one. */
  signal(vector: number): void {
    const message = this.message(vector);
    if (message !== undefined) this.#options.send(message);
  }

  /** The guest has written to configuration space, in which the capability lies at `at`. */
  look(registers: MsiRegisters, at: number): void {
    const flags = registers.readU16(at + PCI_MSI_FLAGS);
    const has64Bits = (flags & PCI_MSI_FLAGS_64BIT) !== 0;
    const isEnabled = (flags & PCI_MSI_FLAGS_ENABLE) !== 0;
    // The device has no more than it has, whatever is written (§6.8.1.3).
    const vectors = Math.min(2 ** ((flags & PCI_MSI_FLAGS_QSIZE) >>> 4), this.#options.vectors);
    const first = {
      addressLow: registers.readU32(at + PCI_MSI_ADDRESS_LO),
      addressHigh: has64Bits ? registers.readU32(at + PCI_MSI_ADDRESS_HI) : 0,
      data: registers.readU16(at + (has64Bits ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32)),
    };
    if (isEnabled === this.#isEnabled && vectors === this.#vectors && isSameMessage(first, this.#first)) return;
    const known = Math.max(vectors, this.#vectors);
    this.#isEnabled = isEnabled;
    this.#vectors = vectors;
    this.#first = first;
    for (let vector = 0; vector < known; vector++) this.#options.changed?.(vector);
  }
}
