// What tables and charts say of a result: one series, its ratio to a floor, its outliers.
import { hasSeries, samplesOf, type Series } from "../harness.js";
import { medianInterval, pairwise, type Interval } from "../statistics.js";
import type { LadderResult, StageName } from "./result.js";

export function seriesOf(result: LadderResult, stage: StageName, rung: string, metric: string): Series | undefined {
  return result.stages[stage]?.series.find((series) => series.variant === rung && series.metric === metric);
}

/** Rung over base, round by round; a rung with fewer rounds took part in the first ones. */
export function ratio(
  result: LadderResult,
  stage: StageName,
  metric: string,
  rung: string,
  base: string,
): Interval | undefined {
  const measurements = result.stages[stage];
  if (measurements === undefined) return undefined;
  if (!hasSeries(measurements, rung, metric) || !hasSeries(measurements, base, metric)) return undefined;
  const ours = samplesOf(measurements, rung, metric);
  const theirs = samplesOf(measurements, base, metric);
  const count = Math.min(ours.length, theirs.length);
  return medianInterval(pairwise(ours.slice(0, count), theirs.slice(0, count), (a, b) => a / b));
}

/** Tukey's fences: beyond one and a half interquartile ranges from the quartiles. */
const FENCE = 1.5;

export function outliers({ samples, summary: { q1, q3, iqr } }: Series): number[] {
  return samples.filter((value) => value < q1 - FENCE * iqr || value > q3 + FENCE * iqr);
}

/** What went wrong in a stage for a rung, or undefined. */
export function failureOf(result: LadderResult, stage: StageName, rung: string): string | undefined {
  return result.stages[stage]?.failures.find((failure) => failure.variant === rung)?.error;
}

/** Rungs with figures. */
export function present(result: LadderResult): LadderResult["rungs"] {
  return result.rungs.filter(({ skipped }) => skipped === null);
}

export const WORKLOADS: readonly (readonly [metric: string, label: string])[] = [
  ["integer_1000_steps_ns", "integers"],
  ["memory_1000_loads_ns", "memory"],
  ["system_call_ns", "system call"],
  ["pipe_round_trip_ns", "pipe, 2 switches"],
  ["page_fault_ns", "page fault"],
  ["fork_exec_ns", "fork+exec"],
  ["file_create_stat_unlink_ns", "file create, stat, unlink"],
  ["disk_write_256k_ns", "disk write, 256 KiB in order"],
  ["disk_write_4k_ns", "disk write, 4 KiB anywhere"],
  ["disk_read_256k_ns", "disk read, 256 KiB in order"],
  ["disk_read_4k_ns", "disk read, 4 KiB anywhere"],
];

export const NETWORK: readonly (readonly [metric: string, label: string])[] = [
  ["network_round_trip_ns", "network round trip"],
  ["network_send_64k_ns", "network, 64 KiB out"],
  ["network_receive_64k_ns", "network, 64 KiB in"],
];
