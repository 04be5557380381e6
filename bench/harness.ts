// How every bench measures: warm-up, then rounds in which each variant has its turn, so that
// whatever the machine does meanwhile meets all of them. Raw samples are kept.
import { medianInterval, pairwise, summarize, type Interval, type Summary } from "./statistics.js";

/** Figures of one turn by metric; a metric's name ends in its unit (`exit_round_trip_ns`). */
export type Sample = Readonly<Record<string, number>>;

export interface Variant {
  readonly name: string;
  /** It takes part in so many rounds, the first ones; without it, in all. */
  readonly rounds?: number;
  /** One turn. A throw ends this variant's part in the bench and becomes a row with the error. */
  turn(): Sample | Promise<Sample>;
}

/** A variant that could not be set up takes its place among the rows all the same. */
export interface Failure {
  readonly variant: string;
  readonly error: string;
}

export interface Series {
  readonly variant: string;
  readonly metric: string;
  readonly summary: Summary;
  readonly samples: readonly number[];
}

/** A claim of the project, with what was measured for it. */
export interface Target {
  readonly name: string;
  readonly measured: Interval;
  readonly limit: number;
  /** "x" for a ratio, else the unit. */
  readonly unit: string;
  /** "DOUBT": the measured interval lies below what is possible, so the measurement is wrong, not the program good. */
  readonly verdict: "PASS" | "MISS" | "DOUBT";
}

export interface Measurements {
  readonly series: readonly Series[];
  readonly failures: readonly Failure[];
}

export interface BenchResult extends Measurements {
  readonly targets: readonly Target[];
  /** What ran and where, in plain words, for the reader of the figures. */
  readonly notes: readonly string[];
}

export interface BenchContext {
  readonly rounds: number;
  readonly warmups: number;
  /** One line that replaces the last one on a terminal. */
  progress(text: string): void;
}

export interface Bench {
  readonly name: string;
  readonly about: string;
  run(context: BenchContext): Promise<BenchResult>;
}

/** Each pair of rounds starts with the next variant and goes once forwards, once backwards: neighbours change too. */
export function turnOrder(count: number, round: number): number[] {
  const order = Array.from({ length: count }, (_, i) => (i + Math.floor(round / 2)) % count);
  return round % 2 === 0 ? order : order.reverse();
}

export async function measure(variants: readonly Variant[], context: BenchContext): Promise<Measurements> {
  const samples = variants.map(() => new Map<string, number[]>());
  const failures = new Map<number, Failure>();
  const total = context.warmups + context.rounds;
  for (let round = 0; round < total; round++) {
    const isWarmup = round < context.warmups;
    for (const index of turnOrder(variants.length, round)) {
      const variant = variants[index];
      if (variant === undefined || failures.has(index)) continue;
      if (round - context.warmups >= (variant.rounds ?? context.rounds)) continue;
      const phase = isWarmup ? "warm-up" : `round ${String(round - context.warmups + 1)} of ${String(context.rounds)}`;
      context.progress(`${phase}: ${variant.name}`);
      try {
        const sample = await variant.turn();
        if (isWarmup) continue;
        for (const [metric, value] of Object.entries(sample)) {
          const list = samples[index]?.get(metric) ?? [];
          list.push(value);
          samples[index]?.set(metric, list);
        }
      } catch (error) {
        // Half a series would be paired with the wrong rounds.
        samples[index]?.clear();
        failures.set(index, { variant: variant.name, error: error instanceof Error ? error.message : String(error) });
      }
    }
  }
  const series = variants.flatMap(({ name }, index) =>
    [...(samples[index] ?? [])].map(([metric, list]) => ({
      variant: name,
      metric,
      summary: summarize(list),
      samples: list,
    })),
  );
  return { series, failures: [...failures.values()] };
}

/** Throws for a series that is not there, with those that are. */
export function samplesOf({ series }: Measurements, variant: string, metric: string): readonly number[] {
  const found = series.find((one) => one.variant === variant && one.metric === metric);
  if (found === undefined) {
    throw new RangeError(
      `No ${metric} of ${variant}; there are ${series.map((s) => `${s.variant} ${s.metric}`).join(", ")}`,
    );
  }
  return found.samples;
}

export function hasSeries({ series }: Measurements, variant: string, metric: string): boolean {
  return series.some((one) => one.variant === variant && one.metric === metric);
}

/**
 * A target over one value a round. The median decides; the interval says how sure that is. Where
 * less than `floor` is impossible (C does a part of our work), an interval below it is no success:
 * a busy machine can favour one side in round after round.
 */
export function atMost(
  name: string,
  values: readonly number[],
  limit: number,
  unit: string,
  floor = -Infinity,
): Target {
  const measured = medianInterval(values);
  const verdict = measured.high < floor ? "DOUBT" : measured.median <= limit ? "PASS" : "MISS";
  return { name, measured, limit, unit, verdict };
}

export function ratioAtMost(name: string, a: readonly number[], b: readonly number[], limit: number): Target {
  return atMost(
    name,
    pairwise(a, b, (x, y) => x / y),
    limit,
    "x",
  );
}
