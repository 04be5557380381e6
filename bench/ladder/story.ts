// What each rung adds and costs in this run: one table, and sentences made of the figures.
import { formatNumber } from "../table.js";
import { formatDuration, present, ratio, seriesOf } from "./figures.js";
import type { LadderResult, RungResult, StageName } from "./result.js";
import { reachableCalls } from "./survey.js";
import type { Table } from "./tables.js";

const FIRST = "start_first_output_ms";
const NS_PER_MS = 1e6;
const KIB_PER_MIB = 1024;
const NONE = "-";

function medianOf(result: LadderResult, stage: StageName, rung: string, metric: string): number | undefined {
  return seriesOf(result, stage, rung, metric)?.summary.median;
}

function startOf(result: LadderResult, rung: string): number | undefined {
  return medianOf(result, "start", rung, FIRST);
}

export function callsOf(result: LadderResult, { isolation }: RungResult): number | undefined {
  const plain = result.rungs.find(({ name }) => name === "process")?.isolation;
  if (isolation === null || plain === undefined || plain === null) return undefined;
  return reachableCalls(isolation, plain);
}

export function formatMs(ms: number): string {
  return formatDuration(ms * NS_PER_MS);
}

export function formatKib(kib: number): string {
  return kib < KIB_PER_MIB ? `${formatNumber(kib)} KiB` : `${formatNumber(kib / KIB_PER_MIB)} MiB`;
}

function orNone<T>(value: T | undefined, format: (value: T) => string): string {
  return value === undefined ? NONE : format(value);
}

/** Every rung, with what is not here and why. */
export function climbTable(result: LadderResult): Table {
  const rows = result.rungs.map((rung) => {
    const { name, adds, version, skipped, accelerator } = rung;
    const own = [version, accelerator].filter((part) => part !== null).join("; ");
    return [
      ...[name, adds, skipped === null ? own : `not here: ${skipped}`],
      orNone(startOf(result, name), formatMs),
      orNone(ratio(result, "start", FIRST, name, "runc")?.median, (times) => `${formatNumber(times)}×`),
      orNone(medianOf(result, "memory", name, "idle_pss_kib"), formatKib),
      orNone(callsOf(result, rung), String),
    ];
  });
  const head = ["", "what it adds", "what ran", "first output", "against runc", "idle", "host's system calls"];
  return { title: "The rungs", head, rows, wordColumns: 3 };
}

/** "a, b and c" */
function and(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1) ?? ""}`;
}

function startsOf(result: LadderResult, which: (rung: RungResult) => boolean): { name: string; ms: number }[] {
  return present(result)
    .filter(which)
    .flatMap(({ name }) => {
      const ms = startOf(result, name);
      return ms === undefined ? [] : [{ name, ms }];
    })
    .sort((a, b) => a.ms - b.ms);
}

function processes(result: LadderResult): string | undefined {
  const plain = startOf(result, "process");
  const root = startOf(result, "chroot");
  if (plain === undefined) return undefined;
  const more =
    root === undefined
      ? ""
      : ` With another root directory it takes ${formatMs(root)}: chroot is a program too, and is executed first.`;
  return `A plain process prints its first line after ${formatMs(plain)}; this is the floor, and what the measuring costs.${more}`;
}

function namespaces(result: LadderResult): string | undefined {
  const single = startsOf(result, ({ name }) => name.startsWith("ns-"));
  const [fastest] = single;
  const slowest = single.at(-1);
  const all = startOf(result, "namespaces");
  if (fastest === undefined || slowest === undefined || all === undefined) return undefined;
  const group = startOf(result, "cgroup");
  const limits =
    group === undefined ? "" : ` A control group made, filled and removed by a shell takes ${formatMs(group)}.`;
  return `One namespace alone costs between ${formatMs(fastest.ms)} (${fastest.name}) and ${formatMs(slowest.ms)} (${slowest.name}), all eight together ${formatMs(all)}: what the kernel itself does for a container is little.${limits}`;
}

function containers(result: LadderResult): string | undefined {
  const all = startsOf(result, ({ family }) => family === "runtime" || family === "engine");
  if (all.length === 0) return undefined;
  return `The rest of a container's price goes to programs that set it up: ${and(all.map(({ name, ms }) => `${name} ${formatMs(ms)}`))}.`;
}

function machines(result: LadderResult): string[] {
  return present(result)
    .filter(({ family }) => family === "vm")
    .flatMap(({ name, accelerator }) => {
      const ms = startOf(result, name);
      if (ms === undefined) return [];
      const monitor = medianOf(result, "start", name, "phase_monitor_ms");
      const kernel = medianOf(result, "start", name, "phase_kernel_ms");
      const phases =
        monitor === undefined || kernel === undefined
          ? ""
          : `, of which the monitor takes ${formatMs(monitor)} and the guest's kernel ${formatMs(kernel)}`;
      return [
        `${name} brings a kernel of its own (${accelerator ?? "unknown accelerator"}): ${formatMs(ms)}${phases}.`,
      ];
    });
}

function shared(result: LadderResult): string | undefined {
  const counts = present(result).flatMap((rung) => {
    const calls = callsOf(result, rung);
    return calls === undefined || rung.name.startsWith("ns-") ? [] : [{ name: rung.name, family: rung.family, calls }];
  });
  const plain = counts.find(({ name }) => name === "process");
  const filtered = counts.filter(({ family, calls }) => family !== "vm" && calls < (plain?.calls ?? 0));
  if (plain === undefined) return undefined;
  const lowest = filtered.sort((a, b) => a.calls - b.calls)[0];
  const least =
    lowest === undefined
      ? ""
      : `, and still ${String(lowest.calls)} one in ${lowest.name}, the most reserved of the containers`;
  const vm = counts.find(({ family }) => family === "vm");
  const none =
    vm === undefined
      ? ""
      : " A program in a virtual machine reaches none of them: it talks to its own kernel, and that one to the monitor and KVM.";
  return `Of the host's system calls, ${String(plain.calls)} answer a plain process${least}.${none}`;
}

function memory(result: LadderResult): string | undefined {
  const more = present(result).flatMap(({ name, family }) => {
    const kib = medianOf(result, "density", name, "density_host_one_more_kib");
    return kib === undefined || (!["namespaces", "runc", "docker"].includes(name) && family !== "vm")
      ? []
      : [{ name, kib }];
  });
  if (more.length === 0) return undefined;
  return `Of the host's memory, one more idle instance takes ${and(more.map(({ name, kib }) => `${formatKib(kib)} with ${name}`))}, the kernel's own share included.`;
}

/** Sentences whose figure this run does not have are left out. */
export function storyOf(result: LadderResult): string[] {
  const all = [
    processes(result),
    namespaces(result),
    containers(result),
    ...machines(result),
    shared(result),
    memory(result),
  ];
  return all.filter((sentence) => sentence !== undefined);
}
