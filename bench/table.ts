// Results as text: one table of figures, one of targets. Units come from the metrics' names.
import type { BenchResult, Target } from "./harness.js";

/** Three significant digits, thousands separated: 31.4, 0.052, 12,300. */
export function formatNumber(value: number): string {
  const magnitude = Math.abs(value);
  if (magnitude >= 1000) return Math.round(value).toLocaleString("en-US");
  if (magnitude === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(magnitude)));
  return value.toFixed(Math.min(digits, 4));
}

/** First column left, the others right. */
export function formatColumns(rows: readonly (readonly string[])[], leftColumns = 1): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i < leftColumns ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

export function formatTarget({ name, measured, limit, unit, verdict }: Target): string[] {
  const value = (number: number): string => `${formatNumber(number)}${unit === "x" ? "x" : ` ${unit}`}`;
  const interval = `${formatNumber(measured.low)} to ${formatNumber(measured.high)}`;
  return [verdict, name, value(measured.median), `(95 %: ${interval})`, `limit ${value(limit)}`];
}

export function formatResult(result: BenchResult): string {
  const head = ["metric", "variant", "median", "min", "max", "IQR", "n"];
  const metrics = [...new Set(result.series.map(({ metric }) => metric))];
  const rows = metrics.flatMap((metric) =>
    result.series
      .filter((series) => series.metric === metric)
      .map(({ variant, summary: s }) => [
        metric,
        variant,
        ...[s.median, s.min, s.max, s.iqr].map(formatNumber),
        String(s.count),
      ]),
  );
  const parts = [formatColumns([head, ...rows], 2)];
  for (const { variant, error } of result.failures) parts.push(`not measured: ${variant}: ${error}`);
  if (result.targets.length > 0) parts.push(formatColumns(result.targets.map(formatTarget), 2));
  for (const note of result.notes) parts.push(`- ${note}`);
  return parts.join("\n");
}
