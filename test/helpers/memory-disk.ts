// A disk in an array, whose failures a test orders.
import type { GuestMemory } from "../../devices/contracts.js";
import type { BlockBackend } from "../../devices/virtio/block/backend.js";
import type { Segments } from "../../devices/virtio/segments.js";

export class MemoryDisk implements BlockBackend {
  readonly size: number;
  readonly isReadOnly: boolean;
  readonly bytes: Uint8Array;
  /** What was asked for: "read 0+512". */
  readonly log: string[] = [];
  /** Answer to every request from now on, if not 0. */
  error = 0;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory, size: number, isReadOnly = false) {
    this.#memory = memory;
    this.size = size;
    this.isReadOnly = isReadOnly;
    this.bytes = Uint8Array.from({ length: size }, (_, index) => (index >> 9) + index * 7);
  }

  read(position: number, data: Segments): number {
    this.log.push(`read ${String(position)}+${String(data.byteLength)}`);
    if (this.error !== 0) return this.error;
    this.#eachSegment(data, (bytes, offset) => {
      bytes.set(this.bytes.subarray(position + offset, position + offset + bytes.length));
    });
    return 0;
  }

  write(position: number, data: Segments): number {
    this.log.push(`write ${String(position)}+${String(data.byteLength)}`);
    if (this.error !== 0) return this.error;
    this.#eachSegment(data, (bytes, offset) => this.bytes.set(bytes, position + offset));
    return 0;
  }

  flush(): number {
    this.log.push("flush");
    return this.error;
  }

  discard(position: number, length: number): number {
    this.log.push(`discard ${String(position)}+${String(length)}`);
    return this.error;
  }

  writeZeroes(position: number, length: number, mayUnmap: boolean): number {
    this.log.push(`zero ${String(position)}+${String(length)}${mayUnmap ? " unmap" : ""}`);
    if (this.error === 0) this.bytes.fill(0, position, position + length);
    return this.error;
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
