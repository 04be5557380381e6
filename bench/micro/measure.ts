// How the micro benches measure: warm-up, rounds, median and spread, and what stays on the heap.

const WARM_UP_MS = 300;
const ROUND_MS = 100;
/** The heap's growth is measured over so many pieces, because a scavenge in one makes it useless. */
const HEAP_CHUNKS = 100;

/** Operations per second. */
export interface Rates {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** `bytes` of an operation. */
  readonly heapBytes: number;
}

function median(sorted: readonly number[]): number {
  return sorted[sorted.length >> 1] ?? NaN;
}

export interface MeasureOptions {
  readonly rounds: number;
  /** Operations between two looks at the clock. */
  readonly batch: number;
  /** Operations between two looks at the heap. */
  readonly heapChunk: number;
}

/** `run` performs `count` operations, and allocates nothing itself. */
export function measure(run: (count: number) => void, { rounds, batch, heapChunk }: MeasureOptions): Rates {
  const forMs = (ms: number): number => {
    const start = performance.now();
    let operations = 0;
    let now = start;
    for (; now - start < ms; now = performance.now()) {
      run(batch);
      operations += batch;
    }
    return (operations * 1000) / (now - start);
  };
  forMs(WARM_UP_MS);
  const rates = Array.from({ length: rounds }, () => forMs(ROUND_MS)).sort((a, b) => a - b);
  const growths = Array.from({ length: HEAP_CHUNKS }, () => {
    const before = process.memoryUsage().heapUsed;
    run(heapChunk);
    return (process.memoryUsage().heapUsed - before) / heapChunk;
  }).sort((a, b) => a - b);
  return { median: median(rates), min: rates[0] ?? NaN, max: rates.at(-1) ?? NaN, heapBytes: median(growths) };
}
