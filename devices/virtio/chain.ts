// A descriptor chain: the driver's buffers for one request, as checked ranges of guest RAM.
// virtio 1.2 §2.7.5. The walk reads each descriptor once, because the guest may change it at any
// time, and takes at most as many steps as the queue has descriptors, whatever `next` says.
import type { GuestMemory } from "../contracts.js";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_SIZE } from "./constants.js";
import { QueueError } from "./queue-error.js";
import { Segments } from "./segments.js";

/** "The total length of all buffers in the chain MUST NOT exceed 2^32 bytes" (§2.7.5.1). */
const MAX_CHAIN_BYTES = 2 ** 32;

export class DescriptorChain {
  /** Index of the first descriptor, the chain's name in the used ring. */
  head = 0;
  /** Device-readable buffers; they come first in every chain (§2.7.4.2). */
  readonly readable: Segments;
  /** Device-writable buffers. */
  readonly writable: Segments;

  /** struct virtq_desc (§2.7.5), as it was when it was read: the address's halves, the length, flags and next. */
  readonly #descriptor = new Uint32Array(4);

  /** `capacity` descriptors: the size of the queue. */
  constructor(capacity: number) {
    this.readable = new Segments(capacity);
    this.writable = new Segments(capacity);
  }

  /** Walks the chain from `head` in the table at `tableGpa`, which the caller has checked to be RAM. */
  walk(memory: GuestMemory, tableGpa: number, size: number, head: number, allowIndirect: boolean): void {
    const { readable, writable } = this;
    const descriptor = this.#descriptor;
    this.head = head;
    readable.clear();
    writable.clear();
    let table = tableGpa;
    let count = size;
    let index = head;
    let isIndirect = false;
    let isWritable = false;
    for (let steps = 0; ;) {
      if (index >= count) throw new QueueError(`Descriptor ${String(index)} is not in a table of ${String(count)}`);
      memory.read4U32(table + index * VIRTQ_DESC_SIZE, descriptor);
      const gpa = (descriptor[0] ?? 0) + (descriptor[1] ?? 0) * 2 ** 32;
      const length = descriptor[2] ?? 0;
      const flagsAndNext = descriptor[3] ?? 0;

      if ((flagsAndNext & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (!allowIndirect) throw new QueueError("Indirect descriptor without VIRTIO_RING_F_INDIRECT_DESC");
        if (isIndirect) throw new QueueError("Indirect descriptor in an indirect table (§2.7.5.3.1)");
        if ((flagsAndNext & VIRTQ_DESC_F_NEXT) !== 0) throw new QueueError("Descriptor after an indirect table");
        if (length === 0 || length % VIRTQ_DESC_SIZE !== 0) {
          throw new QueueError(`Indirect table of ${String(length)} bytes`);
        }
        if (!memory.contains(gpa, length)) throw outsideRam("Indirect table", gpa, length);
        table = gpa;
        count = length / VIRTQ_DESC_SIZE;
        index = 0;
        isIndirect = true;
        continue;
      }

      if (++steps > size) throw new QueueError(`Chain of more than ${String(size)} descriptors`);
      if ((flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0) isWritable = true;
      else if (isWritable) throw new QueueError("Device-readable descriptor after a device-writable one (§2.7.4.2)");
      // An empty buffer has no bytes that could lie outside RAM; some drivers make them.
      if (length !== 0) {
        if (!memory.contains(gpa, length)) throw outsideRam("Buffer", gpa, length);
        (isWritable ? writable : readable).append(gpa, length);
      }
      if ((flagsAndNext & VIRTQ_DESC_F_NEXT) === 0) break;
      index = flagsAndNext >>> 16;
    }
    if (readable.byteLength + writable.byteLength > MAX_CHAIN_BYTES) {
      throw new QueueError(`Chain of ${String(readable.byteLength + writable.byteLength)} bytes, more than 2^32`);
    }
  }
}

function outsideRam(what: string, gpa: number, length: number): QueueError {
  return new QueueError(`${what} of ${String(length)} bytes at 0x${gpa.toString(16)} is not in RAM`);
}
