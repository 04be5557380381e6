// Long work in small pieces: whoever else lives on this event loop is not held up.

const TURN_MS = 5;

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
}
