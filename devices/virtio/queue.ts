// Split virtqueue, device side. virtio 1.2 §2.7. The queue knows nothing of what travels in it,
// nor how anybody is notified. How to serve it without losing a wake-up: serve-queue.ts.
import type { GuestMemory } from "../contracts.js";
import { DescriptorChain } from "./chain.js";
import {
  VIRTQ_AVAIL_ELEMENT_SIZE,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_RING_HEADER_SIZE,
  VIRTQ_USED_ELEMENT_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from "./constants.js";
import { QueueError } from "./queue-error.js";

/** `idx` lies after the 16-bit `flags` in both rings. */
const IDX_OFFSET = 2;

/** Where the driver has put a queue; the transport has checked alignment, size and RAM. */
export interface QueueAddresses {
  /** Descriptors, a power of two. */
  readonly size: number;
  readonly descriptorGpa: number;
  readonly availableGpa: number;
  readonly usedGpa: number;
}

/** A queue as somebody else takes it up, who serves it in the device's place. */
export interface ServedQueue extends QueueAddresses {
  /** Entry of the available ring that it begins with, modulo 2^16. */
  readonly nextAvailable: number;
}

export interface QueueFeatures {
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  readonly eventIndex: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
}

/** How far the device has come in both rings, modulo 2^16: what a saved queue goes on from. */
export interface QueueIndices {
  readonly nextAvailable: number;
  readonly nextUsed: number;
}

const AT_THE_START: QueueIndices = { nextAvailable: 0, nextUsed: 0 };

export class Queue {
  readonly addresses: QueueAddresses;
  readonly size: number;
  /** Chains taken so far. */
  popped = 0;
  readonly #memory: GuestMemory;
  readonly #features: QueueFeatures;
  readonly #descriptorGpa: number;
  readonly #availableGpa: number;
  readonly #usedGpa: number;
  readonly #usedEventGpa: number;
  readonly #availEventGpa: number;
  readonly #chain: DescriptorChain;
  /** For chains that are given back while somebody follows which pages change. */
  #writtenChain: DescriptorChain | undefined;
  #isStopped = false;
  /** Next entry of the available ring to look at, modulo 2^16. */
  #nextAvailable: number;
  /** `avail.idx` as last loaded: the shared word is only read when these run out. */
  #knownAvailable: number;
  /** Next entry of the used ring to fill, modulo 2^16. */
  #nextUsed: number;
  /** `used.idx` as the driver sees it. */
  #publishedUsed: number;

  constructor(memory: GuestMemory, addresses: QueueAddresses, features: QueueFeatures, indices = AT_THE_START) {
    const { size, descriptorGpa, availableGpa, usedGpa } = addresses;
    this.addresses = addresses;
    this.size = size;
    this.#memory = memory;
    this.#features = features;
    this.#descriptorGpa = descriptorGpa;
    this.#availableGpa = availableGpa;
    this.#usedGpa = usedGpa;
    this.#usedEventGpa = availableGpa + VIRTQ_RING_HEADER_SIZE + size * VIRTQ_AVAIL_ELEMENT_SIZE;
    this.#availEventGpa = usedGpa + VIRTQ_RING_HEADER_SIZE + size * VIRTQ_USED_ELEMENT_SIZE;
    this.#chain = new DescriptorChain(size);
    // Nothing is known of avail.idx: the first `pop` loads it, and checks that it fits.
    this.#nextAvailable = indices.nextAvailable;
    this.#knownAvailable = indices.nextAvailable;
    this.#nextUsed = indices.nextUsed;
    this.#publishedUsed = indices.nextUsed;
  }

  /** Where a saved queue goes on, once all is published; the `held` chains taken last and not given back come again. */
  indices(held: number): QueueIndices {
    return { nextAvailable: (this.#nextAvailable - held) & 0xffff, nextUsed: this.#nextUsed };
  }

  /** For whoever serves it from here on; undefined if it is stopped. */
  served(): ServedQueue | undefined {
    return this.#isStopped ? undefined : { ...this.addresses, nextAvailable: this.#nextAvailable };
  }

  /**
   * Goes on where another device has left the queue, which has served chains in their order: with the first that it has
   * not given back.
   */
  takeOver(): void {
    if (this.#isStopped) return;
    const used = this.#memory.loadU16(this.#usedGpa + IDX_OFFSET);
    this.#nextAvailable = used;
    this.#knownAvailable = used;
    this.#nextUsed = used;
    this.#publishedUsed = used;
  }

  /** Ends the queue for good: it is empty and writes nothing, even for code that still holds it. */
  stop(): void {
    this.#isStopped = true;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /**
   * The next chain, or null if there is none. Without `chain` it is the queue's own object, good
   * until the next call. Throws QueueError for a chain or an index that no driver may write.
   */
  pop(chain: DescriptorChain = this.#chain): DescriptorChain | null {
    const next = this.#nextAvailable;
    if (this.#isStopped || (next === this.#knownAvailable && !this.#moreAvailable())) return null;
    const slot = next & (this.size - 1);
    const head = this.#memory.readU16(this.#availableGpa + VIRTQ_RING_HEADER_SIZE + slot * VIRTQ_AVAIL_ELEMENT_SIZE);
    chain.walk(this.#memory, this.#descriptorGpa, this.size, head, this.#features.indirect);
    this.#nextAvailable = (next + 1) & 0xffff;
    this.popped++;
    return chain;
  }

  /** Takes back the last `pop`, whose chain has not been pushed: the next one finds it again. */
  putBack(): void {
    this.#nextAvailable = (this.#nextAvailable - 1) & 0xffff;
    this.popped--;
  }

  /**
   * Gives a chain back, `written` bytes of whose device-writable part are filled from its start
   * (§2.7.8.2). Not seen by the driver before `publishUsed`.
   */
  pushUsed(head: number, written: number): void {
    if (this.#isStopped) return;
    const slot = this.#nextUsed & (this.size - 1);
    const element = this.#usedGpa + VIRTQ_RING_HEADER_SIZE + slot * VIRTQ_USED_ELEMENT_SIZE;
    this.#memory.writeU32(element, head);
    this.#memory.writeU32(element + 4, written);
    if (this.#memory.isWatched === true) this.#noteChain(head, element);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
  }

  /** Shows the driver all that was pushed; true if it wants an interrupt for it (§2.7.7.2). */
  publishUsed(): boolean {
    const before = this.#publishedUsed;
    const now = this.#nextUsed;
    if (this.#isStopped || now === before) return false;
    // Pairs with the driver's load of used.idx: the elements are visible before the index. It is
    // also the full barrier between this store and the load of whether the driver wants an interrupt.
    this.#memory.storeU16(this.#usedGpa + IDX_OFFSET, now);
    this.#noteWritten(this.#usedGpa, VIRTQ_RING_HEADER_SIZE);
    this.#publishedUsed = now;
    if (!this.#features.eventIndex) {
      return (this.#memory.loadU16(this.#availableGpa) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    }
    // Has the index passed used_event with this step? All modulo 2^16.
    const event = this.#memory.loadU16(this.#usedEventGpa);
    return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
  }

  /** The driver need not notify for now; it may still do so (§2.7.10). */
  suppressNotifications(): void {
    // With EVENT_IDX the old avail_event does it: the driver has passed it already.
    if (this.#isStopped || this.#features.eventIndex) return;
    this.#memory.storeU16(this.#usedGpa, VIRTQ_USED_F_NO_NOTIFY);
    this.#noteWritten(this.#usedGpa, 2);
  }

  /** Asks for the next notification; true if chains arrived meanwhile, for which none will come. */
  resumeNotifications(): boolean {
    if (this.#isStopped) return false;
    this.#askForNotification(this.#nextAvailable);
    // The store above is a full barrier: the driver either sees it after its own update of
    // avail.idx, or this load sees that update. Never neither.
    return this.#moreAvailable();
  }

  /** Asks for a notification of the next chain that the driver adds, however many wait; `avail.idx` until then. */
  notifyOfNext(): number {
    if (this.#isStopped) return this.#knownAvailable;
    const available = this.#memory.loadU16(this.#availableGpa + IDX_OFFSET);
    this.#askForNotification(available);
    return available;
  }

  /** True if the driver has added chains since `notifyOfNext` has answered `available`. */
  hasMoreThan(available: number): boolean {
    return !this.#isStopped && this.#memory.loadU16(this.#availableGpa + IDX_OFFSET) !== available;
  }

  #askForNotification(event: number): void {
    const gpa = this.#features.eventIndex ? this.#availEventGpa : this.#usedGpa;
    this.#memory.storeU16(gpa, this.#features.eventIndex ? event : 0);
    this.#noteWritten(gpa, 2);
  }

  #noteWritten(gpa: number, length: number): void {
    if (this.#memory.isWatched === true) this.#memory.noteWritten?.(gpa, length);
  }

  /** All of a chain that a device may have written: `written` says only how much the driver may trust. */
  #noteChain(head: number, element: number): void {
    this.#noteWritten(element, VIRTQ_USED_ELEMENT_SIZE);
    const chain = (this.#writtenChain ??= new DescriptorChain(this.size));
    try {
      chain.walk(this.#memory, this.#descriptorGpa, this.size, head, this.#features.indirect);
    } catch (error) {
      // A driver that has changed the chain meanwhile loses what it has hidden.
      if (!(error instanceof QueueError)) throw error;
    }
    const { gpas, lengths, count } = chain.writable;
    for (let index = 0; index < count; index++) this.#noteWritten(gpas[index] ?? 0, lengths[index] ?? 0);
  }

  /** Loads avail.idx; pairs with the driver's store, so the entries before it are visible. */
  #moreAvailable(): boolean {
    const available = this.#memory.loadU16(this.#availableGpa + IDX_OFFSET);
    const waiting = (available - this.#nextAvailable) & 0xffff;
    if (waiting > this.size) {
      throw new QueueError(`Driver claims ${String(waiting)} chains in a queue of ${String(this.size)}`);
    }
    this.#knownAvailable = available;
    return waiting !== 0;
  }
}
