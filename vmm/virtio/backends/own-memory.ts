// Memory of this process's that a server of queues has beside the guest's: for rings in which the monitor is the driver.
import { closeDescriptor } from "../../sys/descriptors.js";
import { mmapFile, munmap, viewMemory } from "../../sys/memory.js";
import { sharedMemory } from "../../sys/shared-memory.js";
import type { VhostMemoryRegion } from "./vhost-user-messages.js";

/** Where no guest has memory. */
const OWN_GPA = 2 ** 46;
/** `bytes` of a descriptor. virtio 1.2 §2.7.5. */
const DESCRIPTOR_BYTES = 16;
/** `idx` lies after the 16-bit `flags` in both rings, and the entries after it. */
export const IDX_OFFSET = 2;
export const RING_HEADER_BYTES = 4;
export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;

export class OwnMemory {
  readonly fd: number;
  readonly region: VhostMemoryRegion;
  /** Host address of its first byte. */
  readonly address: number;
  readonly #size: number;

  /** `size` bytes of zeroes, which take memory once they are touched. Throws SystemCallError. */
  constructor(name: string, size: number) {
    this.#size = size;
    this.fd = sharedMemory(name, size);
    try {
      this.address = mmapFile(this.fd, size);
    } catch (error) {
      closeDescriptor(this.fd);
      throw error;
    }
    this.region = { gpa: OWN_GPA, size, hva: this.address, offset: 0 };
  }

  /** All of it, or as much as is told; not after `close`. */
  view(offset = 0, length = this.#size - offset): DataView {
    // SAFETY: within the memory that is mapped here, until `close`.
    return new DataView(viewMemory(this.address + offset, length));
  }

  close(): void {
    munmap(this.address, this.#size);
    closeDescriptor(this.fd);
  }
}

/** What a descriptor says of a range of such memory. */
export interface OwnDescriptor {
  /** From the memory's beginning, `bytes`. */
  readonly offset: number;
  readonly length: number;
  readonly flags?: number;
  readonly next?: number;
}

/** Writes descriptor `index` of the table with which `table` begins. */
export function writeDescriptor(table: DataView, index: number, descriptor: OwnDescriptor): void {
  const { offset, length, flags = 0, next = 0 } = descriptor;
  const at = DESCRIPTOR_BYTES * index;
  table.setBigUint64(at, BigInt(OWN_GPA + offset), true);
  table.setUint32(at + 8, length, true);
  table.setUint16(at + 12, flags, true);
  table.setUint16(at + 14, next, true);
}
