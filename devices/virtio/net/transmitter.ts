// The way of frames from the guest to the host: straight out of the driver's buffers.
// virtio 1.2 §5.1.6.2.
import type { ActivationContext } from "../device.js";
import type { Queue } from "../queue.js";
import { serveQueue, Turn, type Step } from "../serve-queue.js";
import type { Throttle } from "../throttle.js";
import type { NetBackend } from "./backend.js";
import { ETHERNET_HEADER_SIZE, MAX_GSO_FRAME_SIZE, NET_TRANSMITQ, VIRTIO_NET_HDR_SIZE } from "./constants.js";
import type { NetCounters } from "./counters.js";

/** Frames of one turn; they share an interrupt. */
const TURN = { steps: 128 };
/** `ms` until a host that could take no more is asked again. */
const BUSY_PAUSE_MS = 1;

export interface TransmitterOptions {
  readonly context: ActivationContext;
  readonly queue: Queue;
  readonly backend: NetBackend;
  readonly throttle: Throttle;
  readonly counters: NetCounters;
  readonly isLinkUp: () => boolean;
  readonly onError: (error: number) => void;
}

export class Transmitter {
  readonly #context: ActivationContext;
  readonly #queue: Queue;
  readonly #backend: NetBackend;
  readonly #throttle: Throttle;
  readonly #counters: NetCounters;
  readonly #isLinkUp: () => boolean;
  readonly #onError: (error: number) => void;
  /** The frame to come has been counted by the limiter, and the host was busy. */
  #isAdmitted = false;

  constructor(options: TransmitterOptions) {
    this.#context = options.context;
    this.#queue = options.queue;
    this.#backend = options.backend;
    this.#throttle = options.throttle;
    this.#counters = options.counters;
    this.#isLinkUp = options.isLinkUp;
    this.#onError = options.onError;
  }

  readonly #resume = (): void => this.#context.serve(NET_TRANSMITQ);

  /** Sends until frames or the turn run out; true if there is more to send right now. */
  serve(): boolean {
    if (this.#throttle.isWaiting()) return false;
    return serveQueue(this.#queue, this.#context, new Turn(TURN), () => this.#sendOne());
  }

  #sendOne(): Step {
    const chain = this.#queue.pop();
    if (chain === null) return "empty";
    const { readable, head } = chain;
    const length = readable.byteLength - VIRTIO_NET_HDR_SIZE;
    const counters = this.#counters;
    if (length < ETHERNET_HEADER_SIZE) counters.txTooShort++;
    else if (length > MAX_GSO_FRAME_SIZE) counters.txTooLong++;
    else if (!this.#isLinkUp()) counters.txLinkDown++;
    else if (this.#backend.takesAside?.(readable) === true) counters.txAside++;
    else {
      if (!this.#isAdmitted && !this.#throttle.admit(length, this.#resume)) {
        counters.txThrottled++;
        this.#queue.putBack();
        return "waiting";
      }
      const result = this.#backend.send(readable);
      this.#isAdmitted = result === 0;
      if (result === 0) {
        counters.txBusy++;
        this.#queue.putBack();
        this.#throttle.hold(BUSY_PAUSE_MS, this.#resume);
        return "waiting";
      }
      if (result > 0) {
        counters.txFrames++;
        counters.txBytes += length;
      } else {
        counters.txErrors++;
        this.#onError(-result);
      }
    }
    this.#queue.pushUsed(head, 0);
    return "done";
  }
}
