// The ladder for a document: the most important columns as a Markdown table, and where it was measured.
import { formatNumber } from "../table.js";
import { formatDuration, present, ratio, seriesOf } from "./figures.js";
import type { LadderResult, RungResult } from "./result.js";
import { callsOf, formatKib } from "./story.js";
import { describeStamp } from "./tables.js";

const FIRST = "start_first_output_ms";
const NS_PER_MS = 1e6;
const NONE = "–";

interface Column {
  readonly head: string;
  readonly cell: (result: LadderResult, rung: RungResult) => string | undefined;
}

function duration(metric: string): Column["cell"] {
  return (result, { name }) => {
    const series = seriesOf(result, metric.startsWith("network") ? "network" : "work", name, metric);
    return series === undefined ? undefined : formatDuration(series.summary.median);
  };
}

function firstOutput(result: LadderResult, { name }: RungResult): string | undefined {
  const series = seriesOf(result, "start", name, FIRST);
  if (series === undefined) return undefined;
  const { median, q1, q3 } = series.summary;
  const [middle, low, high] = [median, q1, q3].map((ms) => formatDuration(ms * NS_PER_MS));
  return `${middle ?? ""} (${low ?? ""} to ${high ?? ""})`;
}

function againstRunc(result: LadderResult, { name }: RungResult): string | undefined {
  const interval = ratio(result, "start", FIRST, name, "runc");
  if (interval === undefined) return undefined;
  const [median, low, high] = [interval.median, interval.low, interval.high].map(formatNumber);
  return name === "runc" ? "1" : `${median ?? ""} (${low ?? ""} to ${high ?? ""})`;
}

/** Idle, then after its work. */
function memory(result: LadderResult, { name }: RungResult): string | undefined {
  const kib = ["idle_pss_kib", "after_work_pss_kib"].map((metric) => seriesOf(result, "memory", name, metric));
  const [idle, worked] = kib.map((series) => (series === undefined ? NONE : formatKib(series.summary.median)));
  return kib[0] === undefined ? undefined : `${idle ?? ""}, ${worked ?? ""}`;
}

function oneMore(result: LadderResult, { name }: RungResult): string | undefined {
  const series = seriesOf(result, "density", name, "density_host_one_more_kib");
  return series === undefined ? undefined : formatKib(series.summary.median);
}

const COLUMNS: readonly Column[] = [
  { head: "first output (middle half)", cell: firstOutput },
  { head: "× runc (95 %)", cell: againstRunc },
  { head: "memory idle, after work", cell: memory },
  { head: "one more idle, of the host's memory", cell: oneMore },
  { head: "system call", cell: duration("system_call_ns") },
  { head: "file made, removed", cell: duration("file_create_stat_unlink_ns") },
  { head: "network, there and back", cell: duration("network_round_trip_ns") },
  { head: "host's system calls", cell: (result, rung) => callsOf(result, rung)?.toString() },
];

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

/** Without columns that have no figures, and without the single namespaces, which hardly differ. */
export function markdownOf(result: LadderResult): string {
  const rungs = present(result).filter(({ name }) => !name.startsWith("ns-"));
  const columns = COLUMNS.filter(({ cell }) => rungs.some((rung) => cell(result, rung) !== undefined));
  const rows = rungs.map((rung) => {
    const name = rung.accelerator === null ? rung.name : `${rung.name} (${rung.accelerator})`;
    return row([name, ...columns.map(({ cell }) => cell(result, rung) ?? NONE)]);
  });
  const lines = [row(["Rung", ...columns.map(({ head }) => head)]), row(["---", ...columns.map(() => "--:")]), ...rows];
  return `${lines.join("\n")}\n\n${describeStamp(result).join("; ")}. ${result.notes.join(" ")}\n`;
}
