// What has changed between two runs beyond their noise: medians whose 95 % intervals do not touch.
import { medianInterval } from "../statistics.js";
import { formatColumns, formatNumber } from "../table.js";
import { STAGES, type LadderResult } from "./result.js";

export interface Change {
  readonly rung: string;
  readonly metric: string;
  readonly before: number;
  readonly after: number;
}

/** Fewer samples make an interval without width. */
const MIN_SAMPLES = 5;

export function changes(before: LadderResult, after: LadderResult): { changed: Change[]; compared: number } {
  const changed: Change[] = [];
  let compared = 0;
  for (const stage of STAGES) {
    for (const { variant, metric, samples } of after.stages[stage]?.series ?? []) {
      const old = before.stages[stage]?.series.find((one) => one.variant === variant && one.metric === metric);
      if (old === undefined || old.samples.length < MIN_SAMPLES || samples.length < MIN_SAMPLES) continue;
      compared++;
      const a = medianInterval(old.samples);
      const b = medianInterval(samples);
      if (a.high < b.low || b.high < a.low) changed.push({ rung: variant, metric, before: a.median, after: b.median });
    }
  }
  return { changed, compared };
}

export function formatChanges(before: LadderResult, after: LadderResult): string {
  const { changed, compared } = changes(before, after);
  const lines = [
    `Against the run of ${before.stamp.date} (${before.stamp.commit}): ${String(changed.length)} of ${String(compared)} figures changed beyond noise`,
  ];
  if (before.stamp.cpu !== after.stamp.cpu || before.stamp.kernel !== after.stamp.kernel) {
    lines.push(`Another host: ${before.stamp.cpu}, Linux ${before.stamp.kernel}. Differences may be the host's.`);
  }
  const rows = changed.map(({ rung, metric, before: old, after: now }) => [
    rung,
    metric,
    formatNumber(old),
    formatNumber(now),
    `${formatNumber(now / old)}x`,
  ]);
  return rows.length === 0
    ? lines.join("\n")
    : `${lines.join("\n")}\n${formatColumns([["", "", "before", "now", ""], ...rows], 2)}`;
}
