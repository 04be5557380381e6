// Reader and Writer: byte streams over a chain's segments. A driver may cut its buffers anywhere
// (virtio 1.2 §2.7.4.1), so nothing may assume that a header lies in one descriptor.
import type { GuestMemory } from "../contracts.js";
import { QueueError } from "./queue-error.js";
import { Segments } from "./segments.js";

const NOTHING = new Segments(0);

function tooShort(): QueueError {
  return new QueueError("Chain is shorter than the request that it holds");
}

/** A position in a list of segments; one object serves every chain of a queue. */
class Cursor {
  /** `bytes` left. */
  remaining = 0;
  protected readonly memory: GuestMemory;
  #segments: Segments | undefined;
  #index = 0;
  #offset = 0;

  constructor(memory: GuestMemory) {
    this.memory = memory;
  }

  /** Begins at the first byte of `segments`, which must stay as they are while this is in use. */
  start(segments: Segments): void {
    this.#segments = segments;
    this.#index = 0;
    this.#offset = 0;
    this.remaining = segments.byteLength;
  }

  /** Moves the next `length` bytes' ranges to the end of `into`, for a backend to fill or to send. */
  take(length: number, into: Segments): void {
    const { gpas, lengths, count } = this.#segments ?? NOTHING;
    let index = this.#index;
    let offset = this.#offset;
    // In one loop: a long request has hundreds of ranges.
    for (let left = length; left > 0;) {
      if (index >= count) throw tooShort();
      const here = (lengths[index] ?? 0) - offset;
      const piece = Math.min(left, here);
      into.append((gpas[index] ?? 0) + offset, piece);
      left -= piece;
      if (piece === here) {
        index++;
        offset = 0;
      } else {
        offset += piece;
      }
    }
    this.#index = index;
    this.#offset = offset;
    this.remaining -= length;
  }

  skip(length: number): void {
    for (let left = length; left > 0;) {
      const piece = Math.min(left, this.contiguous());
      this.claim(piece);
      left -= piece;
    }
  }

  /**
   * The next bytes that lie together, at most `limit`, as a window on guest memory: the driver may
   * change them at any time, and has them back with the chain. Throws QueueError at the end.
   */
  window(limit: number): Uint8Array {
    const length = Math.min(limit, this.contiguous());
    return this.memory.slice(this.claim(length), length);
  }

  /** Bytes up to the end of the current segment; throws QueueError at the end of the chain. */
  protected contiguous(): number {
    const segments = this.#segments;
    if (segments === undefined || this.#index >= segments.count) {
      throw tooShort();
    }
    return (segments.lengths[this.#index] ?? 0) - this.#offset;
  }

  /** Address of the next `length` bytes, which must not be more than `contiguous` says. */
  protected claim(length: number): number {
    const left = this.contiguous() - length;
    const gpa = (this.#segments?.gpas[this.#index] ?? 0) + this.#offset;
    if (left === 0) {
      this.#index++;
      this.#offset = 0;
    } else {
      this.#offset += length;
    }
    this.remaining -= length;
    return gpa;
  }
}

/** Reads little-endian values from device-readable segments. */
export class Reader extends Cursor {
  readU8(): number {
    return this.memory.readU8(this.claim(1));
  }

  readU16(): number {
    if (this.contiguous() >= 2) return this.memory.readU16(this.claim(2));
    return this.readU8() | (this.readU8() << 8);
  }

  readU32(): number {
    if (this.contiguous() >= 4) return this.memory.readU32(this.claim(4));
    return this.readU16() + this.readU16() * 2 ** 16;
  }

  /** A 64-bit value as a number: exact below 2^53, and still huge above. */
  readU64(): number {
    return this.readU32() + this.readU32() * 2 ** 32;
  }

  /** Fills `target` with the next bytes. */
  readBytes(target: Uint8Array): void {
    for (let done = 0; done < target.length;) {
      const piece = Math.min(target.length - done, this.contiguous());
      target.set(this.memory.slice(this.claim(piece), piece), done);
      done += piece;
    }
  }
}

/** Writes little-endian values to device-writable segments. */
export class Writer extends Cursor {
  writeU8(value: number): void {
    this.memory.writeU8(this.claim(1), value);
  }

  writeU16(value: number): void {
    if (this.contiguous() >= 2) {
      this.memory.writeU16(this.claim(2), value);
    } else {
      this.writeU8(value & 0xff);
      this.writeU8(value >>> 8);
    }
  }

  writeU32(value: number): void {
    if (this.contiguous() >= 4) {
      this.memory.writeU32(this.claim(4), value);
    } else {
      this.writeU16(value & 0xffff);
      this.writeU16(value >>> 16);
    }
  }

  writeBytes(source: Uint8Array): void {
    for (let done = 0; done < source.length;) {
      const piece = Math.min(source.length - done, this.contiguous());
      this.memory.slice(this.claim(piece), piece).set(source.subarray(done, done + piece));
      done += piece;
    }
  }
}
