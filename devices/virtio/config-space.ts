// Device configuration space as little-endian bytes. virtio 1.2 §2.5. A device fills the fields
// once; the driver reads them at any width, and what lies outside reads 0.
import type { AccessSize } from "../contracts.js";

export class ConfigSpace {
  readonly #data: DataView;

  /** `length` bytes, all zero. */
  constructor(length: number) {
    this.#data = new DataView(new ArrayBuffer(length));
  }

  read(offset: number, size: AccessSize): number {
    if (offset + size > this.#data.byteLength) return 0;
    if (size === 1) return this.#data.getUint8(offset);
    return size === 2 ? this.#data.getUint16(offset, true) : this.#data.getUint32(offset, true);
  }

  setU8(offset: number, value: number): void {
    this.#data.setUint8(offset, value);
  }

  setU16(offset: number, value: number): void {
    this.#data.setUint16(offset, value, true);
  }

  setU32(offset: number, value: number): void {
    this.#data.setUint32(offset, value, true);
  }

  /** `value` below 2^53. */
  setU64(offset: number, value: number): void {
    this.#data.setBigUint64(offset, BigInt(value), true);
  }
}
