// A network in arrays: what the guest sends is kept, what it is to receive is put there by a test.
import type { GuestMemory } from "../../devices/contracts.js";
import type { GuestOffloads, NetBackend } from "../../devices/virtio/net/backend.js";
import type { Segments } from "../../devices/virtio/segments.js";

export class MemoryNet implements NetBackend {
  readonly canOffload: boolean;
  readonly sent: Uint8Array[] = [];
  /** Frames that wait for the guest, header included. */
  readonly waiting: Uint8Array[] = [];
  offloads: GuestOffloads | undefined;
  /** Answer to every `send` from now on, if defined. */
  sendResult: number | undefined;
  /** Error of every `receive` from now on, if not 0. */
  receiveError = 0;
  /** What `watch` was given; undefined while nobody watches. */
  ready: (() => void) | undefined;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory, canOffload = true) {
    this.#memory = memory;
    this.canOffload = canOffload;
  }

  setGuestOffloads(offloads: GuestOffloads): number {
    this.offloads = offloads;
    return 0;
  }

  send(frame: Segments): number {
    if (this.sendResult !== undefined) return this.sendResult;
    const bytes = new Uint8Array(frame.byteLength);
    this.#eachSegment(frame, (window, offset) => bytes.set(window, offset));
    this.sent.push(bytes);
    return bytes.length;
  }

  receive(buffers: Segments): number {
    if (this.receiveError !== 0) return -this.receiveError;
    const frame = this.waiting.shift();
    if (frame === undefined) return 0;
    this.#eachSegment(buffers, (window, offset) => window.set(frame.subarray(offset, offset + window.length)));
    return frame.length;
  }

  watch(ready: () => void): void {
    this.ready = ready;
  }

  unwatch(): void {
    this.ready = undefined;
  }

  explain(error: number): string {
    return `error ${String(error)}`;
  }

  /** Puts a frame there, and says so if somebody watches, as poll would do. */
  arrive(...frames: readonly Uint8Array[]): void {
    this.waiting.push(...frames);
    this.ready?.();
  }

  #eachSegment({ gpas, lengths, count }: Segments, visit: (window: Uint8Array, offset: number) => void): void {
    for (let index = 0, offset = 0; index < count; index++) {
      const length = lengths[index] ?? 0;
      visit(this.#memory.slice(gpas[index] ?? 0, length), offset);
      offset += length;
    }
  }
}

/** A frame of `length` bytes behind an empty header, its bytes counted from `first`. */
export function frameOf(length: number, first = 1): Uint8Array {
  const frame = new Uint8Array(12 + length);
  for (let index = 0; index < frame.length; index++) frame[index] = first + index;
  return frame.fill(0, 0, 12);
}
