// What tables and charts say of a result: one series, its ratio to a floor, its outliers.
import { hasSeries, samplesOf, type Series } from "../harness.js";
import { medianInterval, pairwise, type Interval } from "../statistics.js";
import { formatNumber } from "../table.js";
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

export type Workloads = readonly (readonly [metric: string, label: string])[];

/** Measured by the stage "work", but for the network. */
export const WORKLOADS = {
  kernel: [
    ["integer_1000_steps_ns", "1000 integer steps"],
    ["memory_1000_loads_ns", "1000 memory loads"],
    ["system_call_ns", "system call"],
    ["pipe_round_trip_ns", "pipe, there and back"],
    ["page_faults_64_ns", "64 page faults"],
    ["fork_exec_ns", "fork+exec"],
  ],
  files: [
    ["file_create_stat_unlink_ns", "create, stat, unlink"],
    ["disk_write_256k_ns", "write 256 KiB in order"],
    ["disk_write_4k_ns", "write 4 KiB anywhere"],
    ["disk_read_256k_ns", "read 256 KiB in order"],
    ["disk_read_4k_ns", "read 4 KiB anywhere"],
  ],
  network: [
    ["network_round_trip_ns", "a byte there and back"],
    ["network_send_64k_ns", "64 KiB to the host"],
    ["network_receive_64k_ns", "64 KiB from the host"],
  ],
} as const satisfies Record<string, Workloads>;

export function stageOf(metric: string): StageName {
  return metric.startsWith("network_") ? "network" : "work";
}

/** 223 ns, 13.2 µs, 1.12 ms. */
export function formatDuration(ns: number): string {
  const units = [
    [1e9, "s"],
    [1e6, "ms"],
    [1e3, "µs"],
  ] as const;
  const unit = units.find(([size]) => ns >= size);
  return unit === undefined ? `${formatNumber(ns)} ns` : `${formatNumber(ns / unit[0])} ${unit[1]}`;
}
