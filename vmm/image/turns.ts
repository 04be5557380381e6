// Long work in small pieces: whoever else lives on this event loop is not held up.

/** A step may take as long again, and nobody is to be held up for 10 ms. */
const TURN_MS = 3;

/** Work that can stop after each piece of it. */
export type Steps<Result = void> = Generator<undefined, Result>;

export class Turns {
  readonly #signal: AbortSignal | undefined;
  #sinceMs = performance.now();

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Whether it is time to wait for `next`. */
  get isOver(): boolean {
    return performance.now() - this.#sinceMs > TURN_MS;
  }

  /** Lets others run; throws the reason of the signal if the work was called off. */
  async next(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#signal?.throwIfAborted();
    this.#sinceMs = performance.now();
  }

  /** Does all of it, a turn at a time. */
  async run<Result>(steps: Steps<Result>): Promise<Result> {
    for (;;) {
      const { done, value } = steps.next();
      if (done === true) return value;
      if (this.isOver) await this.next();
    }
  }
}
