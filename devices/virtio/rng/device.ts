// Entropy device: every buffer is filled from the host's generator. virtio 1.2 §5.4. It has no
// features and no configuration space.
import type { State, StateReader } from "../../state.js";
import { VIRTIO_ID_RNG } from "../constants.js";
import { Writer } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import type { Queue } from "../queue.js";
import type { RateLimiterConfig } from "../rate-limiter.js";
import { serveQueue, Turn, type Step } from "../serve-queue.js";
import { Throttle } from "../throttle.js";
import type { EntropySource } from "./backend.js";
import { restoreRng, saveRng } from "./state.js";

const QUEUE_SIZE = 64;
/** `bytes` for one buffer: "it MAY use less than the entire buffer" (§5.4.6.1). Linux asks for 64. */
export const RNG_REQUEST_BYTES = 16 * 1024;
/** Buffers of one turn: 256 KiB at most, well below a millisecond of the host's generator. */
const TURN = { steps: 16 };

export interface RngDeviceOptions {
  /** Short instance name, such as "rng0". */
  readonly name: string;
  readonly source: EntropySource;
  readonly rateLimiter?: RateLimiterConfig | undefined;
  readonly loop: EventLoop;
}

/** What exists between DRIVER_OK and reset. */
interface Session {
  readonly context: ActivationContext;
  readonly queue: Queue;
  readonly writer: Writer;
  readonly resume: () => void;
}

export class RngDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_RNG;
  readonly offeredFeatures = 0n;
  readonly queueMaxSizes = [QUEUE_SIZE];
  readonly counters = {
    requests: 0,
    bytes: 0,
    /** Chains without a byte to fill. */
    refused: 0,
    throttled: 0,
  };
  readonly #source: EntropySource;
  readonly #throttle: Throttle;
  #session: Session | undefined;

  constructor({ name, source, rateLimiter, loop }: RngDeviceOptions) {
    this.name = name;
    this.#source = source;
    this.#throttle = new Throttle(rateLimiter, loop);
  }

  /** Buckets that are not given stay as they are. */
  updateRateLimiter(config: RateLimiterConfig): void {
    this.#throttle.update(config);
  }

  readConfig(): number {
    return 0;
  }

  writeConfig(): void {
    // There is no configuration space.
  }

  activate(context: ActivationContext): void {
    const [queue] = context.queues;
    if (queue === undefined) return;
    this.#session = { context, queue, writer: new Writer(context.memory), resume: () => context.serve(0) };
  }

  save(): State {
    return saveRng(this.#throttle);
  }

  restore(state: StateReader): void {
    restoreRng(state, this.#throttle);
  }

  reset(): void {
    this.#throttle.cancel();
    this.#session = undefined;
  }

  onAvailable(_queueIndex: number): boolean {
    const session = this.#session;
    if (session === undefined || this.#throttle.isWaiting()) return false;
    return serveQueue(session.queue, session.context, new Turn(TURN), () => this.#serveOne(session));
  }

  #serveOne({ queue, writer, resume }: Session): Step {
    const chain = queue.pop();
    if (chain === null) return "empty";
    const length = Math.min(chain.writable.byteLength, RNG_REQUEST_BYTES);
    if (length === 0) {
      this.counters.refused++;
      queue.pushUsed(chain.head, 0);
      return "done";
    }
    if (!this.#throttle.admit(length, resume)) {
      this.counters.throttled++;
      queue.putBack();
      return "waiting";
    }
    writer.start(chain.writable);
    for (let left = length; left > 0;) {
      const window = writer.window(left);
      this.#source.fill(window);
      left -= window.length;
    }
    this.counters.requests++;
    this.counters.bytes += length;
    queue.pushUsed(chain.head, length);
    return "done";
  }
}
