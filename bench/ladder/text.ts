// The ladder as text, for the terminal.
import type { Series } from "../harness.js";
import type { Interval } from "../statistics.js";
import { formatColumns, formatNumber } from "../table.js";
import { WORKLOADS, failureOf, outliers, present, ratio, seriesOf } from "./figures.js";
import { notesOf } from "./notes.js";
import { STAGES, type LadderResult, type RungResult } from "./result.js";
import { reachableCalls } from "./survey.js";

const NONE = "-";

function cell(series: Series | undefined): string {
  return series === undefined ? NONE : formatNumber(series.summary.median);
}

function times(interval: Interval | undefined): string {
  if (interval === undefined) return NONE;
  const { median, low, high } = interval;
  return `${formatNumber(median)} (${formatNumber(low)} to ${formatNumber(high)})`;
}

function startTable(result: LadderResult): string {
  const metric = "start_first_output_ms";
  const head = ["", "first output", "q1 to q3", "min", "max", "out", "whole life", "x process (95 %)", "x runc (95 %)", "n"];
  const rows = present(result).flatMap(({ name }) => {
    const first = seriesOf(result, "start", name, metric);
    if (first === undefined) return [];
    const { summary: s } = first;
    return [
      [
        name,
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
  return `Start-up, ms: launch to the program's first output; "out": samples beyond 1.5 IQR, not dropped\n${formatColumns([head, ...rows])}`;
}

const PHASES = [
  ["phase_monitor_ms", "monitor"],
  ["phase_kernel_ms", "kernel"],
  ["phase_init_and_program_ms", "init, program, exit"],
  ["exits_count", "exits"],
] as const;

function phaseTable(result: LadderResult): string {
  const rows = present(result)
    .map(({ name, accelerator }) => [
      name,
      ...PHASES.map(([metric]) => cell(seriesOf(result, "start", name, metric))),
      accelerator ?? "",
    ])
    .filter((row) => row[1] !== NONE);
  if (rows.length === 0) return "";
  return `Phases of VMs, ms\n${formatColumns([["", ...PHASES.map(([, label]) => label), "accelerator"], ...rows])}`;
}

function atOnceTable(result: LadderResult): string {
  const stage = result.stages["at-once"];
  if (stage === undefined) return "";
  const counts = [...new Set(stage.series.map(({ metric }) => Number(/^at_once_(\d+)/.exec(metric)?.[1])))].sort((a, b) => a - b);
  const rows = present(result)
    .map(({ name }) => [
      name,
      ...counts.flatMap((count) => [
        cell(seriesOf(result, "at-once", name, `at_once_${String(count)}_first_output_ms`)),
        cell(seriesOf(result, "at-once", name, `at_once_${String(count)}_starts_per_s`)),
      ]),
    ])
    .filter((row) => row.slice(1).some((text) => text !== NONE));
  const head = ["", ...counts.flatMap((count) => [`${String(count)} at once, ms`, "starts/s"])];
  return `Several at once: first output, ms, and rate\n${formatColumns([head, ...rows])}`;
}

function workTable(result: LadderResult): string {
  if (result.stages.work === undefined) return "";
  const rows = present(result).map(({ name }) => [
    name,
    ...WORKLOADS.map(([metric]) => {
      const base = seriesOf(result, "work", "process", metric);
      const own = seriesOf(result, "work", name, metric);
      if (name === "process" || base === undefined) return own === undefined ? NONE : `${cell(own)} ns`;
      return own === undefined ? NONE : `${formatNumber(own.summary.median / base.summary.median)}x`;
    }),
  ]);
  const head = ["", ...WORKLOADS.map(([, label]) => label)];
  return `Work: time against the plain process (higher is slower)\n${formatColumns([head, ...rows])}`;
}

function memoryTable(result: LadderResult): string {
  if (result.stages.memory === undefined) return "";
  const rows = present(result).map(({ name }) => [
    name,
    cell(seriesOf(result, "memory", name, "idle_pss_kib")),
    cell(seriesOf(result, "memory", name, "idle_processes_count")),
    cell(seriesOf(result, "memory", name, "engine_pss_kib")),
    cell(seriesOf(result, "density", name, "density_one_more_kib")),
    cell(seriesOf(result, "density", name, "density_count")),
  ]);
  const head = ["", "one idle instance", "processes", "engine, once", "one more", "instances started"];
  return `Memory, KiB (PSS)\n${formatColumns([head, ...rows])}`;
}

function yes(value: boolean): string {
  return value ? "own" : "host's";
}

/** One row of the table of what a program sees; undefined for a rung that was not asked. */
export function isolationRow(result: LadderResult, rung: RungResult): string[] | undefined {
  const { isolation, namespaces } = rung;
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
    isolation.interfaces.join(" ") || "none",
    own("user"),
    isolation.sees_host_processes ? "seen" : "hidden",
    String(isolation.capabilities),
    isolation.seccomp === 2 ? "yes" : "no",
    plain === undefined || plain === null ? NONE : String(reachableCalls(isolation, plain)),
  ];
}

export const ISOLATION_HEAD = [
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
  "host's system calls",
];

function isolationTable(result: LadderResult): string {
  const rows = present(result).flatMap((rung) => {
    const row = isolationRow(result, rung);
    return row === undefined ? [] : [row];
  });
  return rows.length === 0 ? "" : `Isolation, as the program and the host see it\n${formatColumns([ISOLATION_HEAD, ...rows], 9)}`;
}

/** One line a thing that went wrong or is not there. */
export function troubles(result: LadderResult): string[] {
  const lines: string[] = [];
  for (const { name, skipped, failed_starts: failed, starts, last_failure: last } of result.rungs) {
    if (skipped !== null) lines.push(`not measured: ${name}: ${skipped}`);
    if (failed > 0) lines.push(`${name}: ${String(failed)} of ${String(starts)} starts failed; the last: ${last ?? ""}`);
    for (const stage of STAGES) {
      const failure = failureOf(result, stage, name);
      if (failure !== undefined) lines.push(`not measured: ${name}, ${stage}: ${failure}`);
    }
  }
  return lines;
}

export function describeStamp({ stamp, host, quick, rounds }: LadderResult): string {
  const { cpu, cpus, memory_mib: memory, kernel, node, commit, date, accelerator } = stamp;
  return [
    `${cpu}, ${String(cpus)} CPUs, ${String(memory)} MiB, Linux ${kernel}, cgroups ${host.cgroups}, Node ${node}`,
    `/dev/kvm: ${accelerator}`,
    `vmlet ${commit}, ${date}, ${String(rounds)} rounds${quick ? " (quick)" : ""}`,
  ].join("\n");
}

export function formatLadder(result: LadderResult): string {
  const tables = [startTable, phaseTable, atOnceTable, workTable, memoryTable, isolationTable].map((table) => table(result));
  const lists = [troubles(result), notesOf(result)].map((lines) => lines.map((line) => `- ${line}`).join("\n"));
  return [describeStamp(result), ...tables, ...lists].filter((part) => part !== "").join("\n\n");
}
