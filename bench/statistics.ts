// What the benches say about samples: order statistics, and ratios of samples that were taken
// in the same round, with a bootstrap interval. No assumption about how the noise is spread.

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly q1: number;
  readonly q3: number;
  /** Interquartile range, q3 - q1. */
  readonly iqr: number;
  readonly count: number;
}

export interface Interval {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** Linear interpolation between the closest ranks; `q` from 0 to 1. Throws for no samples. */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const below = sorted[Math.floor(at)];
  const above = sorted[Math.ceil(at)];
  if (below === undefined || above === undefined) throw new RangeError("A quantile needs at least one sample");
  return below + (above - below) * (at - Math.floor(at));
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

export function summarize(samples: readonly number[]): Summary {
  const q1 = quantile(samples, 0.25);
  const q3 = quantile(samples, 0.75);
  return {
    median: median(samples),
    min: Math.min(...samples),
    max: Math.max(...samples),
    q1,
    q3,
    iqr: q3 - q1,
    count: samples.length,
  };
}

/** Sample i of `a` with sample i of `b`: both saw the same moment of a noisy machine. */
export function pairwise(
  a: readonly number[],
  b: readonly number[],
  combine: (a: number, b: number) => number,
): number[] {
  if (a.length !== b.length) {
    throw new RangeError(`Pairs need as many samples on both sides: ${String(a.length)} and ${String(b.length)}`);
  }
  return a.map((value, i) => combine(value, b[i] ?? Number.NaN));
}

const BOOTSTRAP_RESAMPLES = 2000;
const SEED = 0x9e37_79b9;

/**
 * The median and its 95 % percentile-bootstrap interval. The generator is seeded, so the same
 * samples give the same interval.
 */
export function medianInterval(samples: readonly number[]): Interval {
  const random = xorshift32(SEED);
  const medians = Array.from({ length: BOOTSTRAP_RESAMPLES }, () =>
    median(samples.map(() => samples[Math.floor(random() * samples.length)] ?? Number.NaN)),
  );
  return { median: median(samples), low: quantile(medians, 0.025), high: quantile(medians, 0.975) };
}

/** Uniform numbers in [0, 1); Marsaglia's 13/17/5 generator. */
function xorshift32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}
