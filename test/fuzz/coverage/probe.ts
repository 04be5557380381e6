// What instrumented modules count and compare, in this process.

/** Places in all modules that a target may load. */
const MAX_COUNTERS = 1 << 17;
/** Comparisons that are kept of one run. */
const MAX_COMPARISONS = 4096;

export type Compared = number | bigint | string;

interface Module {
  readonly counters: Uint8Array;
  readonly left: (value: unknown) => unknown;
  readonly right: (value: unknown) => unknown;
  readonly subject: (value: unknown) => unknown;
  readonly case: (value: unknown) => unknown;
}

/** Where instrumented modules look for it. */
const place = globalThis as { fuzzProbe?: ((file: string, count: number) => Module) | undefined };

export class Probe {
  /** One byte a place, counted up round and round. */
  readonly #all = new Uint8Array(MAX_COUNTERS);
  #used = 0;
  readonly #compared: (readonly [Compared, Compared])[] = [];
  #isTracing = false;

  /** Modules that are loaded from now on count here. */
  install(): void {
    let lastLeft: unknown;
    let lastSubject: unknown;
    const note = (one: unknown, other: unknown): void => {
      if (one === other || typeof one !== typeof other || this.#compared.length >= MAX_COMPARISONS) return;
      if (isCompared(one) && isCompared(other)) this.#compared.push([one, other]);
    };
    const left = (value: unknown): unknown => (lastLeft = value);
    const right = (value: unknown): unknown => {
      if (this.#isTracing) note(lastLeft, value);
      return value;
    };
    const subject = (value: unknown): unknown => (lastSubject = value);
    const ofCase = (value: unknown): unknown => {
      if (this.#isTracing) note(lastSubject, value);
      return value;
    };
    place.fuzzProbe = (_file, count) => {
      const begin = this.#used;
      this.#used += count;
      if (this.#used > MAX_COUNTERS) throw new Error(`More than ${String(MAX_COUNTERS)} places to count`);
      return { counters: this.#all.subarray(begin, this.#used), left, right, subject, case: ofCase };
    };
  }

  /** No module that is instrumented can be loaded any more. */
  uninstall(): void {
    place.fuzzProbe = undefined;
  }

  /** Places in the modules that are loaded. */
  get size(): number {
    return this.#used;
  }

  /** Counters of all places, whole words of them. */
  get words(): Uint32Array {
    return new Uint32Array(this.#all.buffer, 0, Math.ceil(this.#used / 4));
  }

  clear(): void {
    this.#all.fill(0, 0, this.#used);
  }

  /** Runs `task` and returns what it has compared with something else. */
  async trace(task: () => Promise<void> | undefined): Promise<readonly (readonly [Compared, Compared])[]> {
    this.#compared.length = 0;
    this.#isTracing = true;
    try {
      await task();
    } finally {
      this.#isTracing = false;
    }
    return [...this.#compared];
  }
}

function isCompared(value: unknown): value is Compared {
  return typeof value === "number" || typeof value === "bigint" || (typeof value === "string" && value.length < 128);
}
