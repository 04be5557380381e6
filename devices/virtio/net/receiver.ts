// The way of frames from the host to the guest: out of the backend into buffers that were taken
// from the queue before. virtio 1.2 §5.1.6.3, §5.1.6.4.
import type { ActivationContext } from "../device.js";
import type { Queue } from "../queue.js";
import type { Throttle } from "../throttle.js";
import type { NetBackend } from "./backend.js";
import { ETHERNET_HEADER_SIZE, NET_RECEIVEQ, VIRTIO_NET_HDR_SIZE } from "./constants.js";
import type { NetCounters } from "./counters.js";
import { ReceiveBuffers } from "./receive-buffers.js";

/** Frames of one turn; they share an interrupt. */
const TURN_FRAMES = 128;
/** Ranges of guest memory held for frames, besides those of one more chain. */
const HELD_RANGES = 512;
/** `ms` until a backend that has failed is asked again. */
const ERROR_PAUSE_MS = 100;

export interface ReceiverOptions {
  readonly context: ActivationContext;
  readonly queue: Queue;
  readonly backend: NetBackend;
  readonly throttle: Throttle;
  readonly counters: NetCounters;
  /** A frame may be spread over several buffers. */
  readonly isMergeable: boolean;
  /** `bytes` of the largest frame to expect, header included. */
  readonly maxFrameBytes: number;
  readonly onError: (error: number) => void;
}

export class Receiver {
  readonly #context: ActivationContext;
  readonly #queue: Queue;
  readonly #backend: NetBackend;
  readonly #throttle: Throttle;
  readonly #counters: NetCounters;
  readonly #isMergeable: boolean;
  readonly #maxFrameBytes: number;
  readonly #onError: (error: number) => void;
  readonly #held: ReceiveBuffers;
  /** `bytes` of a frame that lies in the held buffers already and waits for the rate limiter; 0: none. */
  #delayed = 0;

  constructor(options: ReceiverOptions) {
    this.#context = options.context;
    this.#queue = options.queue;
    this.#backend = options.backend;
    this.#throttle = options.throttle;
    this.#counters = options.counters;
    this.#isMergeable = options.isMergeable;
    this.#maxFrameBytes = options.maxFrameBytes;
    this.#onError = options.onError;
    this.#held = new ReceiveBuffers(options.context.memory, HELD_RANGES + options.queue.size);
  }

  readonly #resume = (): void => this.#context.serve(NET_RECEIVEQ);

  /** Buffers that were taken for frames to come; those of no frame yet, once quiet. */
  get heldChains(): number {
    return this.#held.count;
  }

  /** A frame that waits for the limiter is the guest's at once, and the limiter's debt; no more are looked for. */
  quiesce(): void {
    this.#backend.unwatch();
    if (this.#delayed === 0 || this.#queue.isStopped) return;
    this.#throttle.charge(this.#delayed - VIRTIO_NET_HDR_SIZE);
    this.#deliver();
    if (this.#queue.publishUsed()) this.#context.interrupt(this.#queue);
  }

  /** Somebody else serves the queue from here on: buffers that are held are in it again. */
  leave(): void {
    this.quiesce();
    this.#held.putBack(this.#queue);
  }

  /** Receives until frames, buffers or the turn run out; true if there may be more right now. */
  serve(): boolean {
    if (this.#queue.isStopped) {
      // The buffers that are held are the driver's again.
      this.#backend.unwatch();
      return false;
    }
    if (this.#throttle.isWaiting()) return false;
    const isCutOff = this.#receiveSome();
    if (this.#queue.publishUsed()) this.#context.interrupt(this.#queue);
    return isCutOff;
  }

  /** True if the turn has ended before the frames have. */
  #receiveSome(): boolean {
    for (let budget = TURN_FRAMES; budget > 0; budget--) {
      if (this.#delayed === 0 && !this.#receiveOne()) return false;
      if (this.#delayed === 0) continue;
      if (!this.#throttle.admit(this.#delayed - VIRTIO_NET_HDR_SIZE, this.#resume)) {
        this.#counters.rxThrottled++;
        this.#backend.unwatch();
        return false;
      }
      this.#deliver();
    }
    // The turn that comes looks by itself.
    this.#backend.unwatch();
    return true;
  }

  /** The frame that lies in the held buffers goes to the driver. */
  #deliver(): void {
    this.#counters.rxFrames++;
    this.#counters.rxBytes += this.#delayed - VIRTIO_NET_HDR_SIZE;
    this.#held.complete(this.#queue, this.#delayed);
    this.#delayed = 0;
  }

  /** Brings the next frame into the held buffers; false if there is none, or no buffer for it. */
  #receiveOne(): boolean {
    if (!this.#hold()) {
      this.#counters.rxStarved++;
      this.#backend.unwatch();
      return false;
    }
    const { segments } = this.#held;
    const length = this.#backend.receive(segments);
    if (length === 0) {
      this.#backend.watch(this.#resume);
      return false;
    }
    if (length < 0) {
      this.#counters.rxErrors++;
      this.#onError(-length);
      this.#backend.unwatch();
      this.#throttle.hold(ERROR_PAUSE_MS, this.#resume);
      return false;
    }
    // A frame that is dropped leaves its buffers to the next one.
    if (length < VIRTIO_NET_HDR_SIZE + ETHERNET_HEADER_SIZE) this.#counters.rxTooShort++;
    else if (length > segments.byteLength) this.#counters.rxTooLong++;
    else this.#delayed = length;
    return true;
  }

  /** Takes buffers until the largest frame fits; false if it has to wait for the driver to add some. */
  #hold(): boolean {
    if (this.#hasEnough()) return true;
    const queue = this.#queue;
    queue.suppressNotifications();
    do {
      while (!this.#hasEnough()) {
        const chain = queue.pop();
        if (chain === null) break;
        this.#held.append(chain);
      }
      if (this.#hasEnough()) return true;
      // What is there now has to be used again before more can come: the driver must get an interrupt.
      if (queue.publishUsed()) this.#context.interrupt(queue);
    } while (queue.resumeNotifications());
    // Half the queue and still too little: this driver will never have more at once.
    return this.#held.count > 0 && 2 * this.#held.count >= queue.size;
  }

  #hasEnough(): boolean {
    const { segments, count } = this.#held;
    if (count === 0) return false;
    if (!this.#isMergeable || segments.byteLength >= this.#maxFrameBytes) return true;
    return !this.#held.hasRoomFor(this.#queue.size);
  }
}
