// Serves rings in memory of this process's, as whoever is at the other end of vhost-user would: in order, without a notification.
import { viewMemory } from "../../vmm/sys/memory.js";
import type { VhostMemoryRegion, VhostRingAddresses } from "../../vmm/virtio/backends/vhost-user-messages.js";

export interface TakenChain {
  readonly index: number;
  /** What its one descriptor names. */
  readonly bytes: Uint8Array;
  readonly isWritable: boolean;
}

export class RingServer {
  readonly #region: VhostMemoryRegion;
  readonly #view: DataView;
  readonly #size: number;
  readonly #at: { readonly descriptor: number; readonly available: number; readonly used: number };
  #next = 0;

  constructor(region: VhostMemoryRegion, ring: VhostRingAddresses & { readonly size: number }) {
    this.#region = region;
    this.#view = new DataView(viewMemory(region.hva, region.size));
    this.#size = ring.size;
    const at = (hva: number): number => hva - region.hva;
    this.#at = { descriptor: at(ring.descriptorHva), available: at(ring.availableHva), used: at(ring.usedHva) };
  }

  /** The next chain; undefined if there is none. */
  take(): TakenChain | undefined {
    const { available, descriptor } = this.#at;
    if (this.#view.getUint16(available + 2, true) === this.#next) return undefined;
    const index = this.#view.getUint16(available + 4 + 2 * (this.#next % this.#size), true);
    this.#next = (this.#next + 1) & 0xffff;
    const at = descriptor + 16 * index;
    const offset = Number(this.#view.getBigUint64(at, true)) - this.#region.gpa;
    const length = this.#view.getUint32(at + 8, true);
    const isWritable = (this.#view.getUint16(at + 12, true) & 2) !== 0;
    return { index, bytes: new Uint8Array(this.#view.buffer, offset, length), isWritable };
  }

  /** Gives a chain back; numbers are written as they are. */
  give(index: number, length: number): void {
    const { used } = this.#at;
    const done = this.#view.getUint16(used + 2, true);
    const element = used + 4 + 8 * (done % this.#size);
    this.#view.setUint32(element, index, true);
    this.#view.setUint32(element + 4, length, true);
    this.#view.setUint16(used + 2, (done + 1) & 0xffff, true);
  }
}
