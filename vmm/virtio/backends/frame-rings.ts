// A network device's two queues from the driver's side, in memory of this process's: frames to and from whoever serves them by
// vhost-user, for as long as somebody has to look at the guest's. virtio 1.2 §2.7, §5.1.6.
import type { GuestMemory } from "../../../devices/contracts.js";
import {
  MAX_GSO_FRAME_SIZE,
  NET_RECEIVEQ,
  NET_TRANSMITQ,
  VIRTIO_NET_HDR_NUM_BUFFERS,
  VIRTIO_NET_HDR_SIZE,
} from "../../../devices/virtio/net/constants.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { eventfd } from "../../sys/events.js";
import { IDX_OFFSET, OwnMemory, RING_HEADER_BYTES, VIRTQ_DESC_F_WRITE, writeDescriptor } from "./own-memory.js";
import type { OwnRing } from "./vhost-user-queues.js";
import type { QueueEvents } from "./vhost-user.js";

const QUEUES = 2;
/** Descriptors of a ring, each with a buffer of its own that holds the longest frame. */
const RING_SIZE = 16;
// Places in a ring's half of the first page.
const RING_BYTES = 2048;
const AVAILABLE = 256;
const USED = 512;
const USED_ELEMENT_BYTES = 8;
const BUFFERS = 4096;
/** Whole pages. */
const BUFFER_BYTES = 17 * 4096;
const MAX_BYTES = VIRTIO_NET_HDR_SIZE + MAX_GSO_FRAME_SIZE;

/** Where the frames go, or come from. */
export type FrameMemory = Pick<GuestMemory, "slice">;

interface Ring extends OwnRing {
  readonly table: DataView;
  /** `avail.idx`, as written. */
  available: number;
  /** How far `used` has been read. */
  seen: number;
}

export class FrameRings {
  readonly #memory = new OwnMemory("vmlet-frames", BUFFERS + QUEUES * RING_SIZE * BUFFER_BYTES);
  readonly #bytes = new Uint8Array(this.#memory.view().buffer);
  readonly #rings: readonly [Ring, Ring] = [this.#makeRing(NET_RECEIVEQ), this.#makeRing(NET_TRANSMITQ)];

  /** What the server has to have. */
  get shared(): Pick<OwnMemory, "fd" | "region"> {
    return this.#memory;
  }

  /** As they are after `begin`, by queue. */
  get rings(): readonly OwnRing[] {
    return this.#rings;
  }

  /** Signalled when a frame has come. */
  get arrivalsFd(): number {
    return this.#rings[NET_RECEIVEQ].events.callFd;
  }

  /** What the server of the ring for what is sent is told by, and tells by. */
  get sending(): QueueEvents {
    return this.#rings[NET_TRANSMITQ].events;
  }

  /** Nothing has been sent, and every buffer waits for a frame; while nobody serves the rings. */
  begin(): void {
    this.#bytes.fill(0, 0, BUFFERS);
    this.#rings.forEach((ring, queueIndex) => {
      ring.available = 0;
      ring.seen = 0;
      for (let index = 0; index < RING_SIZE; index++) {
        const offset = bufferOffset(queueIndex, index);
        const flags = queueIndex === NET_RECEIVEQ ? VIRTQ_DESC_F_WRITE : 0;
        writeDescriptor(ring.table, index, { offset, length: BUFFER_BYTES, flags });
        if (queueIndex === NET_RECEIVEQ) makeAvailable(ring, index);
      }
    });
  }

  /** A frame with its header goes out; false if there is no room for it yet. The server has to be told. */
  send(frame: Segments, memory: FrameMemory): boolean {
    return this.#put(frame.byteLength, (buffer) => {
      let at = 0;
      for (let index = 0; index < frame.count; index++) {
        const length = frame.lengths[index] ?? 0;
        buffer.set(memory.slice(frame.gpas[index] ?? 0, length), at);
        at += length;
      }
    });
  }

  /** The same for one of this process's, without a header. */
  sendOwn(frame: Uint8Array): boolean {
    return this.#put(VIRTIO_NET_HDR_SIZE + frame.length, (buffer) => {
      buffer.fill(0, 0, VIRTIO_NET_HDR_SIZE);
      buffer.set(frame, VIRTIO_NET_HDR_SIZE);
    });
  }

  /** All that was sent has been taken. */
  get isSent(): boolean {
    const ring = this.#rings[NET_TRANSMITQ];
    return usedIndex(ring) === ring.available;
  }

  /** As NetBackend.receive. Its buffer is the server's again, which looks for one when it has a frame, and is not told. */
  receive(buffers: Segments, memory: FrameMemory): number {
    const ring = this.#rings[NET_RECEIVEQ];
    for (;;) {
      if (usedIndex(ring) === ring.seen) return 0;
      const element = USED + RING_HEADER_BYTES + (ring.seen % RING_SIZE) * USED_ELEMENT_BYTES;
      // Whatever a server writes there.
      const index = ring.table.getUint32(element, true) % RING_SIZE;
      const length = Math.min(ring.table.getUint32(element + 4, true), BUFFER_BYTES);
      ring.seen = (ring.seen + 1) & 0xffff;
      const offset = bufferOffset(NET_RECEIVEQ, index);
      // A buffer holds the longest frame: one that goes on in the next is none.
      const count = offset + VIRTIO_NET_HDR_NUM_BUFFERS;
      const isWhole = this.#bytes[count] === 1 && this.#bytes[count + 1] === 0;
      if (isWhole) scatter(this.#bytes.subarray(offset, offset + length), buffers, memory);
      makeAvailable(ring, index);
      if (isWhole) return length;
    }
  }

  close(): void {
    for (const { events } of this.#rings) for (const fd of [events.kickFd, events.callFd]) closeDescriptor(fd);
    this.#memory.close();
  }

  #makeRing(queueIndex: number): Ring {
    const descriptorHva = this.#memory.address + queueIndex * RING_BYTES;
    return {
      ring: {
        size: RING_SIZE,
        nextAvailable: 0,
        descriptorHva,
        availableHva: descriptorHva + AVAILABLE,
        usedHva: descriptorHva + USED,
      },
      events: { kickFd: eventfd(), callFd: eventfd() },
      table: this.#memory.view(queueIndex * RING_BYTES, RING_BYTES),
      available: 0,
      seen: 0,
    };
  }

  #put(length: number, fill: (buffer: Uint8Array) => void): boolean {
    const ring = this.#rings[NET_TRANSMITQ];
    // A server takes frames in their order.
    const waiting = (ring.available - usedIndex(ring)) & 0xffff;
    if (waiting >= RING_SIZE || length > MAX_BYTES) return false;
    const index = ring.available % RING_SIZE;
    const offset = bufferOffset(NET_TRANSMITQ, index);
    fill(this.#bytes.subarray(offset, offset + length));
    writeDescriptor(ring.table, index, { offset, length });
    makeAvailable(ring, index);
    return true;
  }
}

function bufferOffset(queueIndex: number, index: number): number {
  return BUFFERS + (queueIndex * RING_SIZE + index) * BUFFER_BYTES;
}

function usedIndex({ table }: Ring): number {
  return table.getUint16(USED + IDX_OFFSET, true);
}

/** Whoever serves the ring sees the entry before the index: stores become visible in their order. */
function makeAvailable(ring: Ring, index: number): void {
  ring.table.setUint16(AVAILABLE + RING_HEADER_BYTES + 2 * (ring.available % RING_SIZE), index, true);
  ring.available = (ring.available + 1) & 0xffff;
  ring.table.setUint16(AVAILABLE + IDX_OFFSET, ring.available, true);
}

function scatter(frame: Uint8Array, { gpas, lengths, count }: Segments, memory: FrameMemory): void {
  for (let index = 0, at = 0; index < count && at < frame.length; index++) {
    const piece = frame.subarray(at, at + (lengths[index] ?? 0));
    memory.slice(gpas[index] ?? 0, piece.length).set(piece);
    at += piece.length;
  }
}
