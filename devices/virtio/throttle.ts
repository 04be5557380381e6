// A rate limiter in front of one queue: while it says wait, the queue is held; then it goes on by
// itself. The device puts the chain back, or keeps what it holds, until `resume` comes.
import type { EventLoop } from "./event-loop.js";
import type { State, StateReader } from "../state.js";
import { RateLimiter, type RateLimiterConfig } from "./rate-limiter.js";

export class Throttle {
  /** Times that the queue has been stopped. */
  stops = 0;
  readonly #loop: EventLoop;
  readonly #limiter: RateLimiter;
  #wait: { readonly cancel: () => void; readonly resume: () => void } | undefined;

  constructor(config: RateLimiterConfig | undefined, loop: EventLoop) {
    this.#loop = loop;
    this.#limiter = new RateLimiter(config ?? {}, () => loop.now());
  }

  /** The queue is held: nothing is taken from it before `resume` comes. */
  isWaiting(): boolean {
    return this.#wait !== undefined;
  }

  /** One operation of `bytes`: true if it may go on; else nothing is counted and `resume` will be called. */
  admit(bytes: number, resume: () => void): boolean {
    const waitMs = this.#limiter.isLimiting ? this.#limiter.admit(bytes) : 0;
    if (waitMs <= 0) return true;
    this.stops++;
    this.hold(waitMs, resume);
    return false;
  }

  /** One operation of `bytes` that cannot wait. */
  charge(bytes: number): void {
    this.#limiter.charge(bytes);
  }

  save(): State {
    return this.#limiter.save();
  }

  restore(state: StateReader): void {
    this.#limiter.restore(state);
  }

  /** New limits, as RateLimiter.update; a queue that waits because of the old ones is looked at at once. */
  update(config: RateLimiterConfig): void {
    this.#limiter.update(config);
    const wait = this.#wait;
    this.cancel();
    wait?.resume();
  }

  /** Holds the queue for a reason other than the limiter's. */
  hold(waitMs: number, resume: () => void): void {
    this.cancel();
    const cancel = this.#loop.after(waitMs, () => {
      this.#wait = undefined;
      resume();
    });
    this.#wait = { cancel, resume };
  }

  /** Releases the queue without `resume`: the device is being reset. */
  cancel(): void {
    this.#wait?.cancel();
    this.#wait = undefined;
  }
}
