// A disk in an array, whose failures a test orders.
import type { GuestMemory } from "../../devices/contracts.js";
import { BACKEND_BUSY, type BlockBackend } from "../../devices/virtio/block/backend.js";
import type { Segments } from "../../devices/virtio/segments.js";

export class MemoryDisk implements BlockBackend {
  readonly size: number;
  readonly isReadonly: boolean;
  readonly bytes: Uint8Array;
  /** What was asked for: "read 0+512". */
  readonly log: string[] = [];
  /** Answer to every request from now on, if not 0. */
  error = 0;
  /** Every request says so, and waits for `finishOne`. */
  isSlow = false;
  /** What waits, the first one first. */
  readonly later: (() => void)[] = [];
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory, size: number, isReadonly = false) {
    this.#memory = memory;
    this.size = size;
    this.isReadonly = isReadonly;
    this.bytes = new Uint8Array(size);
    for (let index = 0; index < size; index++) this.bytes[index] = (index >> 9) + index * 7;
  }

  read(position: number, data: Segments): number {
    this.log.push(`read ${String(position)}+${String(data.byteLength)}`);
    if (this.isSlow) return BACKEND_BUSY;
    if (this.error !== 0) return this.error;
    this.#eachSegment(data, (bytes, offset) => {
      bytes.set(this.bytes.subarray(position + offset, position + offset + bytes.length));
    });
    return 0;
  }

  write(position: number, data: Segments): number {
    this.log.push(`write ${String(position)}+${String(data.byteLength)}`);
    if (this.isSlow) return BACKEND_BUSY;
    if (this.error !== 0) return this.error;
    this.#eachSegment(data, (bytes, offset) => this.bytes.set(bytes, position + offset));
    return 0;
  }

  flush(): number {
    this.log.push("flush");
    return this.isSlow ? BACKEND_BUSY : this.error;
  }

  readLater(position: number, length: number, done: (error: number, bytes: Uint8Array) => void): void {
    this.log.push(`read later ${String(position)}+${String(length)}`);
    this.later.push(() => done(this.error, this.bytes.slice(position, position + length)));
  }

  writeLater(position: number, bytes: Uint8Array, done: (error: number) => void): void {
    this.log.push(`write later ${String(position)}+${String(bytes.length)}`);
    this.later.push(() => {
      if (this.error === 0) this.bytes.set(bytes, position);
      done(this.error);
    });
  }

  flushLater(done: (error: number) => void): void {
    this.log.push("flush later");
    this.later.push(() => done(this.error));
  }

  /** False if nothing waits. */
  finishOne(): boolean {
    const next = this.later.shift();
    next?.();
    return next !== undefined;
  }

  discard(position: number, length: number): number {
    this.log.push(`discard ${String(position)}+${String(length)}`);
    return this.isSlow ? BACKEND_BUSY : this.error;
  }

  discardLater(position: number, length: number, done: (error: number) => void): void {
    this.log.push(`discard later ${String(position)}+${String(length)}`);
    this.later.push(() => done(this.error));
  }

  writeZeroes(position: number, length: number, mayUnmap: boolean): number {
    this.log.push(`zero ${String(position)}+${String(length)}${mayUnmap ? " unmap" : ""}`);
    if (this.isSlow) return BACKEND_BUSY;
    if (this.error === 0) this.bytes.fill(0, position, position + length);
    return this.error;
  }

  writeZeroesLater(position: number, length: number, mayUnmap: boolean, done: (error: number) => void): void {
    this.log.push(`zero later ${String(position)}+${String(length)}${mayUnmap ? " unmap" : ""}`);
    this.later.push(() => {
      if (this.error === 0) this.bytes.fill(0, position, position + length);
      done(this.error);
    });
  }

  explain(error: number): string {
    return `error ${String(error)}`;
  }

  #eachSegment({ gpas, lengths, count }: Segments, visit: (bytes: Uint8Array, offset: number) => void): void {
    for (let index = 0, offset = 0; index < count; index++) {
      const length = lengths[index] ?? 0;
      visit(this.#memory.slice(gpas[index] ?? 0, length), offset);
      offset += length;
    }
  }
}
