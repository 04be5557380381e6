// A result of the ladder made up for tests of its tables and its page: every stage, every family, a rung
// that is not there, one that failed.
import type { Measurements } from "../../bench/harness.js";
import { WORKLOADS } from "../../bench/ladder/figures.js";
import { SCHEMA, type LadderResult, type RungResult } from "../../bench/ladder/result.js";
import type { Family } from "../../bench/ladder/rung.js";
import type { Isolation } from "../../bench/ladder/survey.js";
import { summarize } from "../../bench/statistics.js";

export const ROUNDS = 10;
const CALLS = 300;
const EPERM = 1;

export function series(variant: string, metric: string, samples: readonly number[]): Measurements["series"][number] {
  return { variant, metric, samples, summary: summarize(samples) };
}

export function isolation(calls: readonly number[], ownKernel = false): Isolation {
  return {
    ...{ kernel: "6.1", hostname: "h", own_kernel: ownKernel, pid: 1, uid: 0, sees_host_processes: false },
    ...{ interfaces: ["lo"], capabilities: 3, seccomp: 0, no_new_privileges: false, calls },
  };
}

interface Rung {
  readonly name: string;
  readonly family: Family;
  /** First output, `ms`, and memory, `KiB`: the same figure does. */
  readonly scale: number;
  readonly calls: number;
}

const MADE_UP: readonly Rung[] = [
  { name: "process", family: "process", scale: 0.3, calls: 300 },
  { name: "ns-uts", family: "namespaces", scale: 1, calls: 300 },
  { name: "ns-net", family: "namespaces", scale: 1.5, calls: 300 },
  { name: "namespaces", family: "namespaces", scale: 2, calls: 290 },
  { name: "runc", family: "runtime", scale: 20, calls: 280 },
  { name: "docker", family: "engine", scale: 200, calls: 250 },
  { name: "vmlet", family: "vm", scale: 8000, calls: 0 },
];

function rungResult({ name, family, scale, calls }: Rung): RungResult {
  return {
    ...{ name, family, adds: `what ${name} adds & <more>`, version: `${name} 1`, skipped: null, limits: "own" },
    accelerator: family === "vm" ? "software KVM" : null,
    ...{ first_start_ms: scale, starts: 99, failed_starts: 0, last_failure: null },
    isolation: isolation(
      Array.from({ length: CALLS }, (_, number) => (number < calls ? 0 : EPERM)),
      family === "vm",
    ),
    namespaces: family === "vm" ? null : ["pid"],
    outside: { uid: 0, capabilities: 41, has_filter: false },
    skipped_work: name === "docker" ? { network: "no bridge" } : {},
    density: { budget_mib: 1000, started: 64, in_budget: 1234, is_extrapolated: true, stopped: "stopped after 8 s" },
  };
}

/** Around `scale`, never twice the same. */
function spread(scale: number, count = ROUNDS): number[] {
  return Array.from({ length: count }, (_, i) => scale * (0.9 + (0.2 * ((i * 7) % count)) / count));
}

export function madeUpResult(): LadderResult {
  const stage = (...metrics: readonly string[]): Measurements => ({
    series: MADE_UP.flatMap(({ name, scale }) => metrics.map((metric) => series(name, metric, spread(scale)))),
    failures: [],
  });
  const names = (workloads: readonly (readonly [string, string])[]): string[] => workloads.map(([metric]) => metric);
  const missing: RungResult = {
    ...rungResult({ name: "firecracker", family: "vm", scale: 1, calls: 0 }),
    ...{ version: null, skipped: "firecracker is not installed", isolation: null, density: null, accelerator: null },
  };
  return {
    schema: SCHEMA,
    stamp: {
      ...{ commit: "abc1234", date: "2026-01-02T03:04:05.000Z", cpu: "A CPU", cpus: 2, memory_mib: 4096 },
      ...{ kernel: "6.1", node: "v20", load: 0.5, accelerator: "software KVM" },
    },
    host: { cgroups: "v2", hostname: "h" },
    quick: false,
    rounds: ROUNDS,
    rungs: [...MADE_UP.map(rungResult), missing],
    stages: {
      start: stage("start_first_output_ms", "start_whole_life_ms"),
      "at-once": stage("at_once_4_first_output_ms", "at_once_4_starts_per_s"),
      work: stage(...names(WORKLOADS.kernel), ...names(WORKLOADS.files)),
      network: stage(...names(WORKLOADS.network)),
      memory: stage("idle_pss_kib", "after_work_pss_kib", "idle_processes_count"),
      density: {
        ...stage("density_one_more_kib", "density_host_one_more_kib"),
        failures: [{ variant: "runc", error: "no more" }],
      },
    },
    unfinished: null,
    notes: ["A note."],
  };
}
