// Guest RAM in an array, for tests of what goes into it; same bounds as the real one.
import type { GuestMemory } from "../../devices/contracts.js";
import { GuestMemoryError } from "../../vmm/errors.js";

export class FakeMemory implements GuestMemory {
  readonly bytes: Uint8Array;
  readonly #data: DataView;

  readonly size: number;

  constructor(size: number) {
    this.size = size;
    this.bytes = new Uint8Array(size);
    this.#data = new DataView(this.bytes.buffer);
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
  orU32(gpa: number, bits: number): void {
    this.writeU32(gpa, this.readU32(gpa) | bits);
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
}
