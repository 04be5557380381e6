// Buffers for received frames, taken from the queue ahead of the frame that will fill them: how
// long it is shows only once it has been read, and then it must have a place. virtio 1.2 §5.1.6.3.
import type { GuestMemory } from "../../contracts.js";
import type { DescriptorChain } from "../chain.js";
import type { Queue } from "../queue.js";
import { QueueError } from "../queue-error.js";
import { Segments } from "../segments.js";
import { VIRTIO_NET_HDR_NUM_BUFFERS, VIRTIO_NET_HDR_SIZE } from "./constants.js";

export class ReceiveBuffers {
  /** The ranges of all chains, in order: what a backend fills. */
  readonly segments: Segments;
  /** Chains held. */
  count = 0;
  readonly #memory: GuestMemory;
  readonly #capacity: number;
  /** Of each chain: its head, its `bytes`, its ranges. */
  readonly #heads: Uint16Array;
  readonly #lengths: Float64Array;
  readonly #ranges: Uint16Array;

  /** Room for `capacity` ranges, at least those of one chain. */
  constructor(memory: GuestMemory, capacity: number) {
    this.#memory = memory;
    this.#capacity = capacity;
    this.segments = new Segments(capacity);
    this.#heads = new Uint16Array(capacity);
    this.#lengths = new Float64Array(capacity);
    this.#ranges = new Uint16Array(capacity);
  }

  /** True if a chain of `ranges` more still fits. */
  hasRoomFor(ranges: number): boolean {
    return this.segments.count + ranges <= this.#capacity;
  }

  append({ head, writable }: DescriptorChain): void {
    // "Each buffer MUST be greater than or equal to the size of struct virtio_net_hdr" (§5.1.6.3.1).
    if (writable.byteLength < VIRTIO_NET_HDR_SIZE) {
      throw new QueueError(`Receive buffer of ${String(writable.byteLength)} bytes has no room for a header`);
    }
    for (let index = 0; index < writable.count; index++) {
      this.segments.append(writable.gpas[index] ?? 0, writable.lengths[index] ?? 0);
    }
    this.#heads[this.count] = head;
    this.#lengths[this.count] = writable.byteLength;
    this.#ranges[this.count] = writable.count;
    this.count++;
  }

  /** Gives the chains back that a frame of `length` bytes fills, no more than are held; returns how many. */
  complete(queue: Queue, length: number): number {
    let chains = 0;
    let ranges = 0;
    for (let left = length; left > 0; chains++) {
      const used = Math.min(left, this.#lengths[chains] ?? 0);
      queue.pushUsed(this.#heads[chains] ?? 0, used);
      ranges += this.#ranges[chains] ?? 0;
      left -= used;
    }
    this.#writeNumBuffers(chains);
    this.segments.dropFirst(ranges);
    this.#heads.copyWithin(0, chains, this.count);
    this.#lengths.copyWithin(0, chains, this.count);
    this.#ranges.copyWithin(0, chains, this.count);
    this.count -= chains;
    return chains;
  }

  /** Gives all of them back as they were taken: the next to serve the queue finds them again. */
  putBack(queue: Queue): void {
    for (; this.count > 0; this.count--) queue.putBack();
    this.segments.clear();
  }

  /** The field is ours even where the backend writes the rest of the header (§5.1.6.4.1). */
  #writeNumBuffers(chains: number): void {
    const { gpas, lengths } = this.segments;
    if ((lengths[0] ?? 0) >= VIRTIO_NET_HDR_SIZE) {
      this.#memory.writeU16((gpas[0] ?? 0) + VIRTIO_NET_HDR_NUM_BUFFERS, chains);
      return;
    }
    for (let index = 0, offset = 0; offset < VIRTIO_NET_HDR_SIZE; index++) {
      const gpa = (gpas[index] ?? 0) - offset;
      const end = offset + (lengths[index] ?? 0);
      if (VIRTIO_NET_HDR_NUM_BUFFERS >= offset && VIRTIO_NET_HDR_NUM_BUFFERS < end) {
        this.#memory.writeU8(gpa + VIRTIO_NET_HDR_NUM_BUFFERS, chains & 0xff);
      }
      if (VIRTIO_NET_HDR_NUM_BUFFERS + 1 >= offset && VIRTIO_NET_HDR_NUM_BUFFERS + 1 < end) {
        this.#memory.writeU8(gpa + VIRTIO_NET_HDR_NUM_BUFFERS + 1, chains >>> 8);
      }
      offset = end;
    }
  }
}
