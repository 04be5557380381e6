// Guest RAM that knows what the device has read: a byte that is read a second time, after nobody but the guest can have written
// it, may have become another one, and what was checked of it no longer holds.
import { WindowedMemory } from "../../../vmm/memory/windowed-memory.js";

export class FetchLog extends WindowedMemory {
  /** "2 bytes at 0x1000", what was read again since `begin`. */
  readonly again: string[] = [];
  /** By address: read as a value, or handed on as a window. */
  readonly #read: Uint8Array;
  #isOn = false;

  constructor(size: number) {
    const ram = new Uint8Array(size);
    const view = (offset: number, length: number): Uint8Array => ram.subarray(offset, offset + length);
    super([{ gpa: 0, size }], view, { viewBytes: 2 ** 32, overlapBytes: 0 });
    this.#read = new Uint8Array(size);
  }

  /** What the device reads from here on is looked at; before, it was the driver. */
  watch(action: () => void): void {
    this.#read.fill(0);
    this.#isOn = true;
    try {
      action();
    } finally {
      this.#isOn = false;
    }
  }

  // Not loadU16: indices and flags of the rings are words that both sides look at again and again.

  override readU8(gpa: number): number {
    this.#fetch(gpa, 1);
    return super.readU8(gpa);
  }
  override readU16(gpa: number): number {
    this.#fetch(gpa, 2);
    return super.readU16(gpa);
  }
  override readU32(gpa: number): number {
    this.#fetch(gpa, 4);
    return super.readU32(gpa);
  }
  override readU64(gpa: number): bigint {
    this.#fetch(gpa, 8);
    return super.readU64(gpa);
  }
  override read4U32(gpa: number, into: Uint32Array): void {
    this.#fetch(gpa, 16);
    super.read4U32(gpa, into);
  }
  override slice(gpa: number, length: number): Uint8Array {
    this.#fetch(gpa, length);
    return super.slice(gpa, length);
  }

  #fetch(gpa: number, length: number): void {
    if (!this.#isOn) return;
    const range = this.#read.subarray(gpa, gpa + length);
    if (range.some((byte) => byte !== 0)) this.again.push(`${String(length)} bytes at 0x${gpa.toString(16)}`);
    range.fill(1);
  }
}
