// The ladder's tables: what the terminal and the page show.
import type { Series } from "../harness.js";
import type { Interval } from "../statistics.js";
import { formatNumber } from "../table.js";
import {
  WORKLOADS,
  failureOf,
  formatDuration,
  outliers,
  present,
  ratio,
  seriesOf,
  stageOf,
  type Workloads,
} from "./figures.js";
import { isOwnDevice } from "./network.js";
import { STAGES, type LadderResult, type Outside, type RungResult } from "./result.js";
import { reachableCalls, type Skipped } from "./survey.js";

export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  /** The first cell of each is a rung's name. */
  readonly rows: readonly (readonly string[])[];
  /** Number of columns, from the first, that hold words; the others hold figures. */
  readonly wordColumns: number;
}

const NONE = "-";

function table(title: string, head: readonly string[], rows: readonly (readonly string[])[], wordColumns = 1): Table {
  // Leaves out columns that have no figure in this run.
  const used = head.map((_, i) => i === 0 || rows.some((row) => row[i] !== NONE));
  const kept = (row: readonly string[]): string[] => row.filter((_, i) => used[i]);
  return {
    title,
    head: kept(head),
    rows: rows.map(kept),
    wordColumns: used.slice(0, wordColumns).filter(Boolean).length,
  };
}

function cell(series: Series | undefined): string {
  if (series === undefined) return NONE;
  const { median } = series.summary;
  return series.metric.endsWith("_count") ? String(Math.round(median)) : formatNumber(median);
}

function hasFigures(row: readonly string[]): boolean {
  return row.slice(1).some((text) => text !== NONE);
}

function times(interval: Interval | undefined): string {
  if (interval === undefined) return NONE;
  const { median, low, high } = interval;
  return `${formatNumber(median)} (${formatNumber(low)} to ${formatNumber(high)})`;
}

function startTable(result: LadderResult): Table {
  const metric = "start_first_output_ms";
  const head = [
    "",
    "very first",
    "first output",
    "q1 to q3",
    "min",
    "max",
    "out",
    "whole life",
    "x process (95 %)",
    "x runc (95 %)",
    "n",
  ];
  const rows = present(result).flatMap(({ name, first_start_ms: veryFirst }) => {
    const first = seriesOf(result, "start", name, metric);
    if (first === undefined) return [];
    const { summary: s } = first;
    return [
      [
        name,
        veryFirst === null ? NONE : formatNumber(veryFirst),
        formatNumber(s.median),
        `${formatNumber(s.q1)} to ${formatNumber(s.q3)}`,
        formatNumber(s.min),
        formatNumber(s.max),
        String(outliers(first).length),
        cell(seriesOf(result, "start", name, "start_whole_life_ms")),
        times(ratio(result, "start", metric, name, "process")),
        times(ratio(result, "start", metric, name, "runc")),
        String(s.count),
      ],
    ];
  });
  return table(
    `Start-up, ms: launch to the program's first output; "very first": before anything was warm; "out": samples beyond 1.5 IQR, not dropped`,
    head,
    rows,
  );
}

const PHASES = [
  ["phase_monitor_ms", "monitor"],
  ["phase_kernel_ms", "kernel"],
  ["phase_init_ms", "init"],
  ["phase_program_ms", "program"],
  ["phase_exit_ms", "exit"],
  ["exits_count", "exits"],
] as const;

function phaseTable(result: LadderResult): Table {
  const rows = present(result)
    .map(({ name, accelerator }) => [
      name,
      ...PHASES.map(([metric]) => cell(seriesOf(result, "start", name, metric))),
      accelerator ?? "",
    ])
    .filter((row) => row[1] !== NONE);
  return table("Phases of VMs, ms", ["", ...PHASES.map(([, label]) => label), "accelerator"], rows);
}

function atOnceTable(result: LadderResult): Table {
  const series = result.stages["at-once"]?.series ?? [];
  const counts = [...new Set(series.map(({ metric }) => Number(/^at_once_(\d+)/.exec(metric)?.[1])))].sort(
    (a, b) => a - b,
  );
  const rows = present(result)
    .map(({ name }) => [
      name,
      ...counts.flatMap((count) => [
        cell(seriesOf(result, "at-once", name, `at_once_${String(count)}_first_output_ms`)),
        cell(seriesOf(result, "at-once", name, `at_once_${String(count)}_starts_per_s`)),
      ]),
    ])
    .filter(hasFigures);
  const head = ["", ...counts.flatMap((count) => [`${String(count)} at once, ms`, "starts/s"])];
  return table("Several at once: first output, ms, and rate", head, rows);
}

function workTable(result: LadderResult, title: string, workloads: Workloads): Table {
  const rows = present(result).map(({ name }) => [
    name,
    ...workloads.map(([metric]) => {
      const base = seriesOf(result, stageOf(metric), "process", metric);
      const own = seriesOf(result, stageOf(metric), name, metric);
      if (own === undefined) return NONE;
      if (name === "process" || base === undefined) return formatDuration(own.summary.median);
      return `${formatNumber(own.summary.median / base.summary.median)}x`;
    }),
  ]);
  const head = ["", ...workloads.map(([, label]) => label)];
  return table(`${title}: time against the plain process (higher is slower)`, head, rows.filter(hasFigures));
}

/** "~": not started, but extrapolated from the cost of the last ones. */
function inBudget({ density }: RungResult): string {
  if (density === null) return NONE;
  return `${density.is_extrapolated ? "~" : ""}${density.in_budget.toLocaleString("en-US")}`;
}

function memoryTable(result: LadderResult): Table {
  const budget = result.rungs.find(({ density }) => density !== null)?.density?.budget_mib;
  const rows = present(result).map((rung) => [
    rung.name,
    ...["idle_pss_kib", "after_work_pss_kib", "idle_processes_count", "engine_pss_kib"].map((metric) =>
      cell(seriesOf(result, "memory", rung.name, metric)),
    ),
    cell(seriesOf(result, "density", rung.name, "density_one_more_kib")),
    cell(seriesOf(result, "density", rung.name, "density_host_one_more_kib")),
    cell(seriesOf(result, "density", rung.name, "density_count")),
    inBudget(rung),
  ]);
  const fits = budget === undefined ? "in the budget" : `fit in ${budget.toLocaleString("en-US")} MiB`;
  const head = ["", "idle", "after work", "processes", "engine, once", "one more", "one more, host", "started", fits];
  return table(
    'Memory, KiB of PSS; "host": what the host has less of; "~": extrapolated',
    head,
    rows.filter(hasFigures),
  );
}

function yes(value: boolean): string {
  return value ? "own" : "host's";
}

function describeOutside({ uid, capabilities, has_filter: hasFilter }: Outside): string {
  return `${String(uid)}, ${String(capabilities)}, ${hasFilter ? "yes" : "no"}`;
}

/** Undefined for a rung that was not measured. */
function isolationRow(result: LadderResult, rung: RungResult): string[] | undefined {
  const { isolation, namespaces, outside } = rung;
  if (isolation === null) return undefined;
  const plain = result.rungs.find(({ name }) => name === "process")?.isolation;
  const own = (kind: string): string =>
    isolation.own_kernel ? "own" : namespaces === null ? NONE : yes(namespaces.includes(kind));
  return [
    rung.name,
    yes(isolation.own_kernel),
    isolation.pid === 1 ? "is PID 1" : own("pid"),
    own("uts"),
    own("net"),
    isolation.interfaces.filter((device) => !isOwnDevice(device)).join(" ") || "none",
    own("user"),
    isolation.sees_host_processes ? "seen" : "hidden",
    String(isolation.capabilities),
    isolation.seccomp === 2 ? "yes" : "no",
    outside === null ? NONE : describeOutside(outside),
    plain === undefined || plain === null ? NONE : String(reachableCalls(isolation, plain)),
  ];
}

const ISOLATION_HEAD = [
  "",
  "kernel",
  "process ids",
  "host name",
  "network",
  "interfaces",
  "users",
  "host's processes",
  "capabilities",
  "call filter",
  "on the host: user id, capabilities, filter",
  "host's system calls",
];

function isolationTable(result: LadderResult): Table {
  const rows = present(result).flatMap((rung) => {
    const row = isolationRow(result, rung);
    return row === undefined ? [] : [row];
  });
  return table("Isolation, as the program and the host see it", ISOLATION_HEAD, rows, 11);
}

/** Workloads with the same reason share a line. */
function reasonsOf(skipped: Skipped): [what: string, reason: string][] {
  const reasons = [...new Set(Object.values(skipped))];
  return reasons.map((reason) => {
    const metrics = Object.keys(skipped).filter((metric) => skipped[metric] === reason);
    return [[...new Set(metrics.map((metric) => metric.split("_")[0]))].join(", "), reason];
  });
}

/** What went wrong or is missing, one line each. */
export function troubles(result: LadderResult): string[] {
  const lines: string[] = [];
  for (const rung of result.rungs) {
    const {
      name,
      skipped,
      failed_starts: failed,
      starts,
      last_failure: last,
      skipped_work: skippedWork,
      density,
    } = rung;
    if (skipped !== null) lines.push(`not measured: ${name}: ${skipped}`);
    if (failed > 0)
      lines.push(`${name}: ${String(failed)} of ${String(starts)} starts failed; the last: ${last ?? ""}`);
    for (const [what, reason] of reasonsOf(skippedWork)) lines.push(`${name}, ${what}: no figures: ${reason}`);
    if (density?.is_extrapolated === true) {
      lines.push(`${name}, density: ${density.stopped}, with ${String(density.started)}: the rest is extrapolated`);
    }
    for (const stage of STAGES) {
      const failure = failureOf(result, stage, name);
      if (failure !== undefined) lines.push(`not measured: ${name}, ${stage}: ${failure}`);
    }
  }
  return lines;
}

/** Which program ran on which machine: one line each. */
export function describeStamp({ stamp, host, quick, rounds }: LadderResult): string[] {
  const { cpu, cpus, memory_mib: memory, kernel, node, commit, date, accelerator } = stamp;
  return [
    `${cpu}, ${String(cpus)} CPUs, ${String(memory)} MiB, Linux ${kernel}, cgroups ${host.cgroups}, Node ${node}`,
    `/dev/kvm: ${accelerator}`,
    `vmlet ${commit}, ${date}, ${String(rounds)} rounds${quick ? " (quick)" : ""}`,
  ];
}

const TABLES = {
  start: startTable,
  phases: phaseTable,
  atOnce: atOnceTable,
  work: (result: LadderResult) => workTable(result, "Work", WORKLOADS.kernel),
  files: (result: LadderResult) => workTable(result, "Files and disk", WORKLOADS.files),
  network: (result: LadderResult) => workTable(result, "Network", WORKLOADS.network),
  memory: memoryTable,
  isolation: isolationTable,
} as const;

/** Tables without rows are left out. */
export function tablesOf(result: LadderResult): Partial<Record<keyof typeof TABLES, Table>> {
  const all = Object.entries(TABLES).map(([name, make]) => [name, make(result)] as const);
  return Object.fromEntries(all.filter(([, { rows }]) => rows.length > 0));
}
