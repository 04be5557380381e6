// Another processor of the guest: a thread that writes into RAM for as long as it is let, without any order. Its values are those
// that a descriptor or ring is likely to break by.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Random } from "../random.js";

const RUN = 1;
const STOPPED = 2;

interface Shared {
  readonly ram: SharedArrayBuffer;
  /** RUN until it is to stop, then STOPPED once it has. */
  readonly state: Int32Array<SharedArrayBuffer>;
  /** Ranges of RAM that it writes to, `gpa` and length in turn. */
  readonly ranges: readonly number[];
  readonly seed: number;
}

export class SecondThread {
  readonly #worker: Worker;
  readonly #state = new Int32Array(new SharedArrayBuffer(4));

  constructor(ram: SharedArrayBuffer, ranges: readonly number[], seed: number) {
    this.#state[0] = RUN;
    const shared: Shared = { ram, state: this.#state, ranges, seed };
    this.#worker = new Worker(new URL(import.meta.url), { workerData: shared, execArgv: [] });
  }

  /** Resolves once it writes. */
  async begin(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#worker.once("message", resolve);
      this.#worker.once("error", reject);
    });
  }

  /** It writes no more when this returns. */
  stop(): void {
    Atomics.store(this.#state, 0, 0);
    Atomics.wait(this.#state, 0, 0, 10_000);
    void this.#worker.terminate();
  }
}

function write({ ram, state, ranges, seed }: Shared, tell: () => void): void {
  const words = new Uint32Array(ram);
  const random = new Random(seed);
  const values = Array.from({ length: 4096 }, () => random.value());
  const places = Array.from({ length: 4096 }, () => {
    const range = 2 * random.below(ranges.length / 2);
    return ((ranges[range] ?? 0) + random.below(ranges[range + 1] ?? 0)) >>> 2;
  });
  tell();
  for (let step = 0; Atomics.load(state, 0) === RUN; step++) {
    // Each place has two values in turn, one of them zero: what was checked and what comes then.
    for (let index = 0; index < 4096; index++) {
      words[places[index] ?? 0] = (step & 1) === 0 ? 0 : (values[(index + step) & 4095] ?? 0);
    }
  }
  Atomics.store(state, 0, STOPPED);
  Atomics.notify(state, 0);
}

if (!isMainThread) {
  write(workerData as Shared, () => parentPort?.postMessage("writes"));
}
