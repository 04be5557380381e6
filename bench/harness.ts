// How every bench measures: warm-up, then rounds in which each variant has its turn, so that other
// work on the machine hits all of them alike. Raw samples are kept.
import { medianInterval, pairwise, summarize, type Interval, type Summary } from "./statistics.js";

/** Figures of one turn by metric; a metric's name ends in its unit (`exit_round_trip_ns`). */
export type Sample = Readonly<Record<string, number>>;

export interface Variant {
  readonly name: string;
  /** It takes part in this many rounds, the first ones; default: in all. */
  readonly rounds?: number;
  /** One turn. A throw ends this variant's part in the bench and becomes a row with the error. */
  turn(): Sample | Promise<Sample>;
}

/** A variant that could not be set up still has its row. */
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

/** What an interrupted bench had after so many whole rounds. */
export interface RoundsDone {
  readonly rounds: number;
  readonly measurements: Measurements;
}

export interface BenchContext {
  readonly rounds: number;
  readonly warmups: number;
  /** Goes on after these rounds; there is no warm-up then. */
  readonly resume?: RoundsDone | undefined;
  /** After each whole round. A throw ends the bench. */
  afterRound?(done: RoundsDone): void;
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

/** Samples and failures by the index of the variant. */
interface Collected {
  readonly samples: readonly Map<string, number[]>[];
  readonly failures: Map<number, Failure>;
}

function collectedSoFar(variants: readonly Variant[], done: RoundsDone | undefined): Collected {
  const samples = variants.map(({ name }) => {
    const own = done?.measurements.series.filter(({ variant }) => variant === name) ?? [];
    return new Map(own.map(({ metric, samples: list }) => [metric, [...list]]));
  });
  const failures = new Map<number, Failure>();
  for (const failure of done?.measurements.failures ?? []) {
    const index = variants.findIndex(({ name }) => name === failure.variant);
    if (index >= 0) failures.set(index, failure);
  }
  return { samples, failures };
}

function asMeasurements(variants: readonly Variant[], { samples, failures }: Collected): Measurements {
  const series = variants.flatMap(({ name }, index) =>
    [...(samples[index] ?? [])].map(([metric, list]) => ({
      variant: name,
      metric,
      summary: summarize(list),
      samples: [...list],
    })),
  );
  return { series, failures: [...failures.values()] };
}

export async function measure(variants: readonly Variant[], context: BenchContext): Promise<Measurements> {
  const collected = collectedSoFar(variants, context.resume);
  const { samples, failures } = collected;
  const total = context.warmups + context.rounds;
  const first = context.resume === undefined ? 0 : context.warmups + context.resume.rounds;
  for (let round = first; round < total; round++) {
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
    if (!isWarmup) {
      context.afterRound?.({
        rounds: round - context.warmups + 1,
        measurements: asMeasurements(variants, collected),
      });
    }
  }
  return asMeasurements(variants, collected);
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
