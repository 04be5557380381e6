// MSI-X: a table of messages, one a vector, each masked or not, and the pending bits of those that are masked.
// PCI Local Bus 3.0 §6.8.2. What is written to a table in other widths than 32 bits is dropped: its result is undefined (§6.8.2).
import type { AccessSize, BusDevice } from "../contracts.js";
import { base64, StateError, type State, type StateReader } from "../state.js";
import {
  PCI_MSIX_ENTRY_CTRL_MASKBIT,
  PCI_MSIX_ENTRY_SIZE,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
} from "./constants.js";

const ENTRY_WORDS = PCI_MSIX_ENTRY_SIZE / 4;
const DATA = 2;
const CONTROL = 3;

/** What is written where to interrupt a processor; anything at all, as the guest has written it. */
export interface MsiMessage {
  readonly addressLow: number;
  readonly addressHigh: number;
  readonly data: number;
}

export function isSameMessage(a: MsiMessage, b: MsiMessage | undefined): boolean {
  return a.addressLow === b?.addressLow && a.addressHigh === b.addressHigh && a.data === b.data;
}

export interface MsixOptions {
  /** 1 to 2048. */
  readonly vectors: number;
  /** Sends a message now. */
  readonly send: (message: MsiMessage) => void;
  /** The vector's `message` may be another one. */
  readonly changed?: (vector: number) => void;
}

export class Msix {
  readonly vectors: number;
  readonly table: BusDevice;
  /** The pending bits, a byte for eight of them. */
  readonly pba: BusDevice;
  readonly #words: Uint32Array;
  readonly #pending: boolean[];
  readonly #options: MsixOptions;
  /** The message control word. */
  #flags = 0;

  constructor(options: MsixOptions) {
    this.#options = options;
    this.vectors = options.vectors;
    this.#words = new Uint32Array(ENTRY_WORDS * options.vectors);
    this.#pending = new Array<boolean>(options.vectors).fill(false);
    for (let vector = 0; vector < options.vectors; vector++)
      this.#setWord(vector, CONTROL, PCI_MSIX_ENTRY_CTRL_MASKBIT);
    this.table = {
      name: "msix-table",
      read: (offset, size) => this.#readTable(offset, size),
      write: (offset, size, value) => {
        if (size === 4 && offset % 4 === 0 && offset / 4 < this.#words.length) this.#writeTable(offset / 4, value);
      },
    };
    this.pba = {
      name: "msix-pba",
      read: (offset, size) => this.#readPending(8 * offset, 8 * size),
      write: () => undefined,
    };
  }

  get isEnabled(): boolean {
    return (this.#flags & PCI_MSIX_FLAGS_ENABLE) !== 0;
  }

  /** The capability's message control, as the guest has written it. */
  set flags(value: number) {
    if (value === this.#flags) return;
    this.#flags = value;
    for (let vector = 0; vector < this.vectors; vector++) this.#update(vector);
  }

  /** Sends the vector's message, or notes that it is pending. Nothing for a vector that is not there, or while disabled. */
  signal(vector: number): void {
    if (!this.isEnabled || vector >= this.vectors) return;
    const message = this.message(vector);
    if (message === undefined) this.#pending[vector] = true;
    else this.#options.send(message);
  }

  /** What the vector sends now; undefined while it is masked, or MSI-X disabled. */
  message(vector: number): MsiMessage | undefined {
    const isMasked = (this.#word(vector, CONTROL) & PCI_MSIX_ENTRY_CTRL_MASKBIT) !== 0;
    if (vector >= this.vectors || isMasked || !this.isEnabled || (this.#flags & PCI_MSIX_FLAGS_MASKALL) !== 0) {
      return undefined;
    }
    return { addressLow: this.#word(vector, 0), addressHigh: this.#word(vector, 1), data: this.#word(vector, DATA) };
  }

  /** The flags are in configuration space, and saved with it. */
  save(): State {
    return {
      table: base64(new Uint8Array(this.#words.buffer)),
      pending: this.#pending.flatMap((isPending, vector) => (isPending ? [vector] : [])),
    };
  }

  /** `flags`: the message control, restored before. Throws StateError. */
  restore(state: StateReader, flags: number): void {
    state.only(["table", "pending"]);
    const bytes = state.bytes("table", this.#words.byteLength);
    const pending = state.list("pending", { minimum: 0, maximum: this.vectors });
    for (const vector of pending) {
      const index = vector.asInteger({ minimum: 0, maximum: this.vectors - 1 });
      if (this.#pending[index] === true) throw new StateError(vector.path, "is there twice");
      this.#pending[index] = true;
    }
    this.#words.set(new Uint32Array(bytes.buffer));
    for (let vector = 0; vector < this.vectors; vector++) {
      this.#setWord(vector, CONTROL, this.#word(vector, CONTROL) & PCI_MSIX_ENTRY_CTRL_MASKBIT);
    }
    this.#flags = flags;
    for (let vector = 0; vector < this.vectors; vector++) this.#options.changed?.(vector);
  }

  #word(vector: number, word: number): number {
    return this.#words[ENTRY_WORDS * vector + word] ?? 0;
  }

  #setWord(vector: number, word: number, value: number): void {
    this.#words[ENTRY_WORDS * vector + word] = value;
  }

  #readTable(offset: number, size: AccessSize): number {
    if (offset % size !== 0) return 0;
    const word = (this.#words[offset >>> 2] ?? 0) >>> (8 * (offset % 4));
    return size === 4 ? word : word & (2 ** (8 * size) - 1);
  }

  #writeTable(index: number, value: number): void {
    const word = index % ENTRY_WORDS;
    // The address has no lowest bits, the control word no other ones (§6.8.2.7, §6.8.2.9).
    const bits = word === 0 ? 0xffff_fffc : word === CONTROL ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0xffff_ffff;
    this.#words[index] = value & bits;
    this.#update((index - word) / ENTRY_WORDS);
  }

  #readPending(first: number, count: number): number {
    let bits = 0;
    for (let bit = 0; bit < count; bit++) if (this.#pending[first + bit] === true) bits |= 1 << bit;
    return bits >>> 0;
  }

  /** After a change: what waited for the mask to go is sent. */
  #update(vector: number): void {
    this.#options.changed?.(vector);
    if (!this.isEnabled) this.#pending[vector] = false;
    if (this.#pending[vector] !== true) return;
    const message = this.message(vector);
    if (message === undefined) return;
    this.#pending[vector] = false;
    this.#options.send(message);
  }
}
