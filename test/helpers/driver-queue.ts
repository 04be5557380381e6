// The driver's side of a split virtqueue, virtio 1.2 §2.7: for tests, fuzzers and benches.
// The polite methods keep the rules; the raw ones at the end write whatever they are told.
import type { GuestMemory } from "../../devices/contracts.js";
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from "../../devices/virtio/constants.js";
import type { QueueAddresses } from "../../devices/virtio/queue.js";

/** One buffer of a chain. */
export interface DriverBuffer {
  readonly gpa: number;
  readonly length: number;
  /** Device-writable. */
  readonly writable?: boolean;
}

export interface Descriptor {
  readonly gpa: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

export interface UsedElement {
  readonly id: number;
  readonly length: number;
}

export class DriverQueue implements QueueAddresses {
  readonly size: number;
  readonly descriptorGpa: number;
  readonly availableGpa: number;
  readonly usedGpa: number;
  /** Id and length of what `takeUsed` has found, without an object for it. */
  usedId = 0;
  usedLength = 0;
  readonly #memory: GuestMemory;
  readonly #eventIndex: boolean;
  readonly #free: number[];
  /** Descriptors in the table that a chain holds, by head. */
  readonly #held = new Map<number, readonly number[]>();
  #available = 0;
  #notified = 0;
  #used = 0;

  /** `gpa`: the first of `bytesFor(size)` bytes, aligned to 16. */
  constructor(memory: GuestMemory, gpa: number, size: number, eventIndex: boolean) {
    this.#memory = memory;
    this.size = size;
    this.#eventIndex = eventIndex;
    this.descriptorGpa = gpa;
    this.availableGpa = gpa + size * VIRTQ_DESC_SIZE;
    this.usedGpa = Math.ceil((this.availableGpa + 4 + 2 * size + 2) / 4) * 4;
    this.#free = Array.from({ length: size }, (_, index) => size - 1 - index);
    memory.slice(gpa, DriverQueue.bytesFor(size)).fill(0);
  }

  static bytesFor(size: number): number {
    return size * VIRTQ_DESC_SIZE + (4 + 2 * size + 2) + 4 + (4 + 8 * size + 2);
  }

  /** Where the driver says at which used index it wants an interrupt. */
  get usedEventGpa(): number {
    return this.availableGpa + 4 + 2 * this.size;
  }

  /** Where the device says at which available index it wants a notification. */
  get availEventGpa(): number {
    return this.usedGpa + 4 + 8 * this.size;
  }

  /** Writes a chain of descriptors and makes it available; returns its head. */
  add(buffers: readonly DriverBuffer[]): number {
    const head = this.write(buffers);
    this.publish(head);
    return head;
  }

  /** The same in an indirect table at `tableGpa`, behind one descriptor. */
  addIndirect(tableGpa: number, buffers: readonly DriverBuffer[]): number {
    buffers.forEach((buffer, index) => {
      this.writeDescriptor(index, descriptorOf(buffer, index + 1, index + 1 < buffers.length), tableGpa);
    });
    const head = this.#take();
    const length = buffers.length * VIRTQ_DESC_SIZE;
    this.writeDescriptor(head, { gpa: tableGpa, length, flags: VIRTQ_DESC_F_INDIRECT, next: 0 });
    this.#held.set(head, [head]);
    this.publish(head);
    return head;
  }

  /** Writes a chain without making it available. */
  write(buffers: readonly DriverBuffer[]): number {
    const indices = buffers.map(() => this.#take());
    buffers.forEach((buffer, position) => {
      const next = indices[position + 1];
      this.writeDescriptor(indices[position] ?? 0, descriptorOf(buffer, next ?? 0, next !== undefined));
    });
    const head = indices[0] ?? 0;
    this.#held.set(head, indices);
    return head;
  }

  /** Makes a head available, whether or not it was written properly. */
  publish(head: number): void {
    this.#memory.writeU16(this.availableGpa + 4 + 2 * (this.#available % this.size), head);
    this.#available = (this.#available + 1) & 0xffff;
    this.#memory.storeU16(this.availableGpa + 2, this.#available);
  }

  /** True if the device wants to hear of what was made available since this was last asked. */
  wantsNotification(): boolean {
    const before = this.#notified;
    this.#notified = this.#available;
    if (!this.#eventIndex) return (this.#memory.loadU16(this.usedGpa) & VIRTQ_USED_F_NO_NOTIFY) === 0;
    const event = this.#memory.loadU16(this.availEventGpa);
    return ((this.#available - event - 1) & 0xffff) < ((this.#available - before) & 0xffff);
  }

  /** Takes one element of the used ring to `usedId` and `usedLength`; false if there is none. */
  takeUsed(): boolean {
    if (this.#memory.loadU16(this.usedGpa + 2) === this.#used) return false;
    const element = this.usedGpa + 4 + 8 * (this.#used % this.size);
    this.usedId = this.#memory.readU32(element);
    this.usedLength = this.#memory.readU32(element + 4);
    this.#used = (this.#used + 1) & 0xffff;
    return true;
  }

  /** All used elements, whose descriptors are free again. */
  collect(): UsedElement[] {
    const elements: UsedElement[] = [];
    while (this.takeUsed()) {
      elements.push({ id: this.usedId, length: this.usedLength });
      this.#free.push(...(this.#held.get(this.usedId) ?? []));
      this.#held.delete(this.usedId);
    }
    return elements;
  }

  /** Asks for an interrupt once the used index passes what was collected, plus `later` elements. */
  wantInterrupt(later = 0): void {
    if (this.#eventIndex) this.#memory.storeU16(this.usedEventGpa, (this.#used + later) & 0xffff);
    else this.#memory.storeU16(this.availableGpa, 0);
  }

  refuseInterrupts(): void {
    // With EVENT_IDX: an index that the used ring has just passed.
    if (this.#eventIndex) this.#memory.storeU16(this.usedEventGpa, (this.#used - 1) & 0xffff);
    else this.#memory.storeU16(this.availableGpa, VIRTQ_AVAIL_F_NO_INTERRUPT);
  }

  // == Raw =====================================================================

  writeDescriptor(index: number, { gpa, length, flags, next }: Descriptor, tableGpa = this.descriptorGpa): void {
    const at = tableGpa + index * VIRTQ_DESC_SIZE;
    this.#memory.writeU64(at, BigInt(gpa));
    this.#memory.writeU32(at + 8, length);
    this.#memory.writeU16(at + 12, flags);
    this.#memory.writeU16(at + 14, next);
  }

  /** Claims any available index. */
  setAvailableIndex(index: number): void {
    this.#available = index & 0xffff;
    this.#memory.storeU16(this.availableGpa + 2, this.#available);
  }

  #take(): number {
    const index = this.#free.pop();
    if (index === undefined) throw new Error(`All ${String(this.size)} descriptors are in use`);
    return index;
  }
}

function descriptorOf(buffer: DriverBuffer, next: number, hasNext: boolean): Descriptor {
  const flags = (buffer.writable === true ? VIRTQ_DESC_F_WRITE : 0) | (hasNext ? VIRTQ_DESC_F_NEXT : 0);
  return { gpa: buffer.gpa, length: buffer.length, flags, next: hasNext ? next : 0 };
}
