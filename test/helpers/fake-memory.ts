// Guest RAM in an array, for tests of what goes into it; same bounds as the real one.
import type { GuestMemory } from "../../devices/contracts.js";
import { GuestMemoryError } from "../../vmm/errors.js";

export class FakeMemory implements GuestMemory {
  readonly bytes: Uint8Array;
  readonly #data: DataView;
  readonly #halves: Uint16Array;

  readonly size: number;

  /** `backed`: bytes that there really are, for a test that touches no more. */
  constructor(size: number, backed = size) {
    this.size = size;
    this.bytes = new Uint8Array(backed);
    this.#data = new DataView(this.bytes.buffer);
    this.#halves = new Uint16Array(this.bytes.buffer, 0, backed >>> 1);
  }

  contains(gpa: number, length: number): boolean {
    return gpa >= 0 && length >= 0 && gpa + length <= this.size;
  }

  slice(gpa: number, length: number): Uint8Array {
    if (!this.contains(gpa, length)) throw new GuestMemoryError(`outside: ${String(gpa)}, ${String(length)}`);
    return this.bytes.subarray(gpa, gpa + length);
  }

  readU8(gpa: number): number {
    return this.#data.getUint8(gpa);
  }
  readU16(gpa: number): number {
    return this.#data.getUint16(gpa, true);
  }
  readU32(gpa: number): number {
    return this.#data.getUint32(gpa, true);
  }
  readU64(gpa: number): bigint {
    return this.#data.getBigUint64(gpa, true);
  }
  orU16(gpa: number, bits: number): void {
    this.writeU16(gpa, this.readU16(gpa) | bits);
  }
  read4U32(gpa: number, into: Uint32Array): void {
    for (let word = 0; word < 4; word++) into[word] = this.readU32(gpa + 4 * word);
  }
  writeU8(gpa: number, value: number): void {
    this.#data.setUint8(gpa, value);
  }
  writeU16(gpa: number, value: number): void {
    this.#data.setUint16(gpa, value, true);
  }
  writeU32(gpa: number, value: number): void {
    this.#data.setUint32(gpa, value, true);
  }
  writeU64(gpa: number, value: bigint): void {
    this.#data.setBigUint64(gpa, value, true);
  }
  loadU16(gpa: number): number {
    if (gpa % 2 !== 0 || !this.contains(gpa, 2)) throw new GuestMemoryError(`outside or odd: ${String(gpa)}`);
    return Atomics.load(this.#halves, gpa / 2);
  }
  storeU16(gpa: number, value: number): void {
    if (gpa % 2 !== 0 || !this.contains(gpa, 2)) throw new GuestMemoryError(`outside or odd: ${String(gpa)}`);
    Atomics.store(this.#halves, gpa / 2, value);
  }
}
