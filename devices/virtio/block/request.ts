// A block request out of a descriptor chain. virtio 1.2 §5.2.6: header (device-readable), data
// (in either direction), one status byte (device-writable, the very last). Drivers cut these into
// descriptors as they like. Pure: nothing is decided here about what a disk can do.
import type { DescriptorChain } from "../chain.js";
import type { Reader, Writer } from "../cursor.js";
import { QueueError } from "../queue-error.js";
import { Segments } from "../segments.js";
import { VIRTIO_BLK_OUTHDR_SIZE, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "./constants.js";

/** What a DISCARD or WRITE_ZEROES names, in `bytes`. */
export interface BlockRange {
  readonly position: number;
  readonly length: number;
  /** The space behind it may be given back. */
  readonly mayUnmap: boolean;
}

export class BlockRequest {
  /** VIRTIO_BLK_T_*, or what the driver takes for one. */
  type = 0;
  /** In units of 512 bytes; inexact, but still out of every range, from 2^53. */
  sector = 0;
  /** Device-writable for IN and GET_ID, device-readable for everything else. */
  readonly data: Segments;
  /** Filled by whoever has read and checked them. */
  readonly ranges: BlockRange[] = [];

  /** `capacity` descriptors: the largest queue. */
  constructor(capacity: number) {
    this.data = new Segments(capacity);
  }

  /** True if the device fills `data`. */
  get isToDriver(): boolean {
    return this.type === VIRTIO_BLK_T_IN || this.type === VIRTIO_BLK_T_GET_ID;
  }

  /** True if `data` is the disk's, which a bandwidth limit counts. */
  get isTransfer(): boolean {
    return this.type === VIRTIO_BLK_T_IN || this.type === VIRTIO_BLK_T_OUT;
  }

  /**
   * Takes the chain apart and leaves `writer` at the status byte. Throws QueueError for a chain
   * that has no header or no place for a status: there is no way to answer it.
   */
  parse({ readable, writable }: DescriptorChain, reader: Reader, writer: Writer): void {
    if (readable.byteLength < VIRTIO_BLK_OUTHDR_SIZE || writable.byteLength === 0) {
      throw new QueueError(
        `Block request of ${String(readable.byteLength)} readable and ${String(writable.byteLength)} writable bytes`,
      );
    }
    reader.start(readable);
    writer.start(writable);
    this.type = reader.readU32();
    reader.skip(4);
    this.sector = reader.readU64();
    this.data.clear();
    this.ranges.length = 0;
    const writableBeforeStatus = writable.byteLength - 1;
    if (this.isToDriver) {
      writer.take(writableBeforeStatus, this.data);
    } else {
      reader.take(reader.remaining, this.data);
      writer.skip(writableBeforeStatus);
    }
  }
}
