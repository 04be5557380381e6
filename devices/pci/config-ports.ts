// Configuration mechanism 1: an address register and a window of four bytes. PCI Local Bus 3.0 §3.2.2.3.2. Every vCPU
// thread has one over the same word; the functions themselves may be elsewhere.
import type { AccessSize, BusDevice, SharedWords } from "../contracts.js";
import type { State, StateReader } from "../state.js";

/** CONFIG_ADDRESS and CONFIG_DATA. */
export const PCI_CONFIG_PORTS_LENGTH = 8;
export const PCI_CONFIG_WORDS = 1;
const ADDRESS_WORD = 0;
const DATA = 4;

const ENABLE = 2 ** 31;
const BUS_SHIFT = 16;
const BUS_MASK = 0xff;
const REGISTER_MASK = 0xfc;
/** Device and function. */
const FUNCTION_SHIFT = 8;
const FUNCTION_MASK = 0xff;

/** Configuration space as ECAM lays it out (PCI Express Base 5.0 §7.2.2): bus, device and function, register. */
const ECAM_BUS = 2 ** 20;
const ECAM_FUNCTION = 2 ** 12;

export class PciConfigPorts implements BusDevice {
  readonly name = "pci-config";
  readonly #words: SharedWords;
  readonly #ecam: Pick<BusDevice, "read" | "write">;

  /** `words`: PCI_CONFIG_WORDS of them. */
  constructor(words: SharedWords, ecam: Pick<BusDevice, "read" | "write">) {
    this.#words = words;
    this.#ecam = ecam;
  }

  read(offset: number, size: AccessSize): number {
    if (offset === 0 && size === 4) return Atomics.load(this.#words, ADDRESS_WORD) >>> 0;
    const at = this.#target(offset, size);
    return at === undefined ? 2 ** (8 * size) - 1 : this.#ecam.read(at, size);
  }

  write(offset: number, size: AccessSize, value: number): void {
    // Of the address only whole words count: bytes there belong to other devices of a PC.
    if (offset === 0 && size === 4) Atomics.store(this.#words, ADDRESS_WORD, value | 0);
    const at = this.#target(offset, size);
    if (at !== undefined) this.#ecam.write(at, size, value);
  }

  /** The access's offset in configuration space; undefined if it is none. */
  #target(offset: number, size: AccessSize): number | undefined {
    const address = Atomics.load(this.#words, ADDRESS_WORD) >>> 0;
    if (offset < DATA || offset + size > PCI_CONFIG_PORTS_LENGTH || address < ENABLE) return undefined;
    const bus = (address >>> BUS_SHIFT) & BUS_MASK;
    const deviceAndFunction = (address >>> FUNCTION_SHIFT) & FUNCTION_MASK;
    return bus * ECAM_BUS + deviceAndFunction * ECAM_FUNCTION + (address & REGISTER_MASK) + (offset - DATA);
  }
}

export function savePciConfigPorts(words: SharedWords): State {
  return { address: Atomics.load(words, ADDRESS_WORD) >>> 0 };
}

export function restorePciConfigPorts(words: SharedWords, state: StateReader): void {
  state.only(["address"]);
  Atomics.store(words, ADDRESS_WORD, state.integer("address", { minimum: 0, maximum: 0xffff_ffff }) | 0);
}
