// The event that tells a driver that all its connections are gone: after a restore their other ends are in another
// process, or nowhere. virtio 1.2 §5.10.6.7. A driver reads its context id again, too.
// Until it has seen to the event, a new connection would be taken for an old one and end with it. A driver gives
// the buffer back once it is done, so that is when packets flow again.
import { Writer } from "../cursor.js";
import type { ActivationContext } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import type { Queue } from "../queue.js";
import { QueueError } from "../queue-error.js";
import { VIRTIO_VSOCK_EVENT_SIZE, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET } from "./constants.js";

/** A driver that gives no buffer back has had its time, `ms`, where nothing else is said. */
const PATIENCE_MS = 1000;

export class TransportReset {
  /** Packets have to wait: the driver is to be told first, and to be done with it. */
  holdsPackets = false;
  readonly #loop: EventLoop;
  readonly #patienceMs: number;
  #isDue = false;
  /** avail.idx when the event was handed over; undefined: none is under way. */
  #availableBefore: number | undefined;
  #cancelWait: (() => void) | undefined;

  constructor(loop: EventLoop, patienceMs = PATIENCE_MS) {
    this.#loop = loop;
    this.#patienceMs = patienceMs;
  }

  /** The driver is to be told. */
  announce(): void {
    this.#isDue = true;
    this.holdsPackets = true;
  }

  /** Serves the event queue; `flow` is called when packets need not wait any longer, now or later. */
  serve(queue: Queue, context: ActivationContext, flow: () => void): void {
    if (this.#availableBefore !== undefined) {
      if (queue.isStopped || queue.hasMoreThan(this.#availableBefore)) this.#release(flow);
      return;
    }
    if (!this.#isDue) return;
    let chain = queue.pop();
    // What has come meanwhile brings no notification.
    if (chain === null && queue.resumeNotifications()) chain = queue.pop();
    if (chain === null) {
      // It is told when it has a buffer for that; most of what waits is not about connections of before.
      if (this.holdsPackets) this.#release(flow);
      return;
    }
    this.#isDue = false;
    if (chain.writable.byteLength < VIRTIO_VSOCK_EVENT_SIZE) {
      throw new QueueError(`Event buffer of ${String(chain.writable.byteLength)} bytes has no room for an event`);
    }
    const writer = new Writer(context.memory);
    writer.start(chain.writable);
    writer.writeU32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
    queue.pushUsed(chain.head, VIRTIO_VSOCK_EVENT_SIZE);
    this.holdsPackets = true;
    this.#availableBefore = queue.notifyOfNext();
    this.#cancelWait = this.#loop.after(this.#patienceMs, () => this.#release(flow));
    if (queue.publishUsed()) context.interrupt(queue);
  }

  /** The driver begins anew, and has no connections. */
  clear(): void {
    this.#isDue = false;
    this.#stopWaiting();
  }

  #release(flow: () => void): void {
    this.#stopWaiting();
    flow();
  }

  #stopWaiting(): void {
    this.holdsPackets = false;
    this.#availableBefore = undefined;
    this.#cancelWait?.();
    this.#cancelWait = undefined;
  }
}
