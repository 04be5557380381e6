// The registers of a function's configuration space as bytes, each with the bits that the guest may write: accesses of
// any size at any offset are the same few lines. PCI Local Bus 3.0 §6.1.
import type { AccessSize } from "../contracts.js";
import { base64, StateError, type StateReader } from "../state.js";
import { PCI_CFG_SPACE_SIZE } from "./constants.js";

export class ConfigBytes {
  readonly #bytes = new Uint8Array(PCI_CFG_SPACE_SIZE);
  readonly #writable = new Uint8Array(PCI_CFG_SPACE_SIZE);
  readonly #data = new DataView(this.#bytes.buffer);

  /** What lies behind the first 256 bytes reads 0: there are no extended capabilities. */
  read(offset: number, size: AccessSize): number {
    let value = 0;
    for (let byte = 0; byte < size; byte++) value |= (this.#bytes[offset + byte] ?? 0) << (8 * byte);
    return value >>> 0;
  }

  /** A write of the guest. */
  write(offset: number, size: AccessSize, value: number): void {
    for (let at = offset, left = value; at < offset + size && at < PCI_CFG_SPACE_SIZE; at++, left >>>= 8) {
      const mask = this.#writable[at] ?? 0;
      this.#bytes[at] = ((this.#bytes[at] ?? 0) & ~mask) | (left & mask);
    }
  }

  readU16(offset: number): number {
    return this.#data.getUint16(offset, true);
  }

  readU32(offset: number): number {
    return this.#data.getUint32(offset, true);
  }

  set(offset: number, bytes: ArrayLike<number>): void {
    this.#bytes.set(bytes, offset);
  }

  setU16(offset: number, value: number): void {
    this.#data.setUint16(offset, value, true);
  }

  setU32(offset: number, value: number): void {
    this.#data.setUint32(offset, value, true);
  }

  /** Lets the guest write these bits of the `size` bytes at `offset`. */
  allow(offset: number, size: AccessSize, bits: number): void {
    for (let byte = 0; byte < size; byte++) this.#writable[offset + byte] = (bits >>> (8 * byte)) & 0xff;
  }

  save(): string {
    return base64(this.#bytes);
  }

  /** Throws StateError for bits that are others and that no guest can have written. */
  restore(state: StateReader): void {
    const saved = state.asBytes(PCI_CFG_SPACE_SIZE);
    const wrong = saved.findIndex((byte, at) => ((byte ^ (this.#bytes[at] ?? 0)) & ~(this.#writable[at] ?? 0)) !== 0);
    if (wrong >= 0) {
      throw new StateError(state.path, `has another value at 0x${wrong.toString(16)} than this function`);
    }
    this.#bytes.set(saved);
  }
}
