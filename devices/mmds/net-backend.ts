// A network with the metadata service in it: frames for the service's address go no further, all others go to the network
// behind.
import type { GuestMemory } from "../contracts.js";
import { Reader, Writer } from "../virtio/cursor.js";
import type { EventLoop } from "../virtio/event-loop.js";
import type { GuestOffloads, NetBackend } from "../virtio/net/backend.js";
import { VIRTIO_NET_HDR_SIZE } from "../virtio/net/constants.js";
import type { Segments } from "../virtio/segments.js";
import { MAX_LOOK_BYTES, type MmdsResponder } from "./responder.js";

/** `bytes` that tell whom a frame is for. */
const FIRST_LOOK_BYTES = 64;
const NO_HEADER = new Uint8Array(VIRTIO_NET_HDR_SIZE);

export interface MmdsNetOptions {
  readonly network: NetBackend;
  readonly responder: MmdsResponder;
  readonly memory: GuestMemory;
  readonly loop: EventLoop;
}

export class MmdsNet implements NetBackend {
  readonly canOffload: boolean;
  readonly #network: NetBackend;
  readonly #responder: MmdsResponder;
  readonly #loop: EventLoop;
  readonly #reader: Reader;
  readonly #writer: Writer;
  readonly #look = new Uint8Array(MAX_LOOK_BYTES);
  #ready: (() => void) | undefined;
  #cancelTimer: (() => void) | undefined;

  constructor({ network, responder, memory, loop }: MmdsNetOptions) {
    this.canOffload = network.canOffload;
    this.#network = network;
    this.#responder = responder;
    this.#loop = loop;
    this.#reader = new Reader(memory);
    this.#writer = new Writer(memory);
  }

  /** A driver begins. */
  setGuestOffloads(offloads: GuestOffloads): number {
    this.#responder.reset();
    return this.#network.setGuestOffloads(offloads);
  }

  announce(mac: Uint8Array): void {
    this.#network.announce?.(mac);
  }

  takesAside(frame: Segments): boolean {
    const reader = this.#reader;
    reader.start(frame);
    reader.skip(VIRTIO_NET_HDR_SIZE);
    const first = this.#look.subarray(0, Math.min(reader.remaining, FIRST_LOOK_BYTES));
    reader.readBytes(first);
    if (!this.#responder.isFor(first)) return false;
    const rest = Math.min(reader.remaining, this.#look.length - first.length);
    reader.readBytes(this.#look.subarray(first.length, first.length + rest));
    this.#responder.receive(this.#look.subarray(0, first.length + rest));
    this.#haveItFetched();
    return true;
  }

  send(frame: Segments): number {
    return this.#network.send(frame);
  }

  receive(buffers: Segments): number {
    const frame = this.#responder.nextFrame();
    if (frame === undefined) return this.#network.receive(buffers);
    const length = VIRTIO_NET_HDR_SIZE + frame.length;
    // One that does not fit is lost, as any other.
    if (length > buffers.byteLength) return length;
    this.#writer.start(buffers);
    this.#writer.writeBytes(NO_HEADER);
    this.#writer.writeBytes(frame);
    return length;
  }

  watch(ready: () => void): void {
    this.#ready = ready;
    this.#network.watch(ready);
    this.#cancelTimer?.();
    const { dueMs } = this.#responder;
    this.#cancelTimer =
      dueMs === Infinity ? undefined : this.#loop.after(Math.max(0, dueMs - this.#loop.now()), () => this.#ready?.());
  }

  unwatch(): void {
    this.#ready = undefined;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#network.unwatch();
  }

  explain(error: number): string {
    return this.#network.explain(error);
  }

  /** In a turn of its own: the device is in the middle of sending. */
  #haveItFetched(): void {
    const ready = this.#ready;
    if (ready === undefined) return;
    this.#loop.defer(() => {
      if (this.#ready === ready) ready();
    });
  }
}
