// As many idle instances as a part of the host's memory holds, found by starting them: twice as many
// again and again, until the budget, the time or the patience is used up.
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Sample } from "../../harness.js";
import type { RungRun } from "../rung-run.js";
import type { Held } from "../launch.js";
import type { DensityEnd } from "../result.js";
import { descendants, totalPssKib } from "../processes.js";
import { SETTLE_MS } from "./memory.js";

export interface DensityLimits {
  /** Part of the memory that is available, 0 to 1. */
  readonly share: number;
  /** Rungs that are slow to start say where they stopped, `ms`. */
  readonly timeMs: number;
  readonly instances: number;
}

/** More than this the launcher cannot start. */
const BATCH = 64;
const KIB_PER_MIB = 1024;

/** What a number of instances took together. */
interface Step {
  readonly count: number;
  /** PSS of their processes, `KiB`. */
  readonly pssKib: number;
  /** By how much the host's available memory fell, `KiB`: with the kernel's own memory, and with other programs' changes. */
  readonly hostKib: number;
}

/** Memory that programs could still get, `KiB`. */
export function availableKib(meminfo = readFileSync("/proc/meminfo", "utf8")): number {
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo)?.[1];
  if (kib === undefined) throw new Error("/proc/meminfo has no MemAvailable");
  return Number(kib);
}

/** One more instance, `KiB`: from half of them to all, so that what the first one brings alone does not count. */
export function oneMoreKib(steps: readonly Step[], of: (step: Step) => number): number | undefined {
  const last = steps.at(-1);
  const half = steps.findLast(({ count }) => last !== undefined && count <= last.count / 2);
  if (last === undefined || half === undefined) return undefined;
  return (of(last) - of(half)) / (last.count - half.count);
}

/** Only the last of `steps` may be beyond the budget. */
export function densityEnd(steps: readonly Step[], budgetKib: number, stopped: string): DensityEnd {
  const last = steps.at(-1);
  if (last === undefined) throw new Error(`not one instance came up: ${stopped}`);
  const cost = Math.max(last.pssKib, last.hostKib);
  const one = Math.max(
    oneMoreKib(steps, ({ pssKib }) => pssKib) ?? last.pssKib / last.count,
    oneMoreKib(steps, ({ hostKib }) => hostKib) ?? last.hostKib / last.count,
  );
  const within = steps.findLast(({ pssKib, hostKib }) => Math.max(pssKib, hostKib) <= budgetKib);
  return {
    budget_mib: Math.round(budgetKib / KIB_PER_MIB),
    started: last.count,
    // Between the last step within the budget and the first beyond it lies what one more costs.
    in_budget: Math.max(within?.count ?? 0, Math.floor(last.count + (budgetKib - cost) / one)),
    is_extrapolated: cost < budgetKib,
    stopped,
  };
}

/** How many to start next; 0: there is no time for one. */
function nextBatch(count: number, elapsedMs: number, limits: DensityLimits): number {
  if (count === 0) return 1;
  const inTime = Math.floor(((limits.timeMs - elapsedMs) * count) / elapsedMs);
  return Math.max(0, Math.min(count, BATCH, limits.instances - count, inTime));
}

function whyNoMore(count: number, limits: DensityLimits): string {
  return count >= limits.instances
    ? `stopped at ${String(limits.instances)} instances`
    : `stopped after ${String(Math.round(limits.timeMs / 1000))} s`;
}

export async function densityTurn(rungRun: RungRun, limits: DensityLimits): Promise<Sample> {
  const engine = (): number[] => (rungRun.engine === undefined ? [] : descendants(rungRun.engine));
  const before = engine();
  const enginePssKib = totalPssKib(before);
  const availableBefore = availableKib();
  const budgetKib = Math.floor(availableBefore * limits.share);
  const held: Held[] = [];
  const steps: Step[] = [];
  let stopped = "";
  const started = performance.now();
  try {
    while (stopped === "") {
      const count = steps.at(-1)?.count ?? 0;
      const batch = nextBatch(count, performance.now() - started, limits);
      if (batch === 0) {
        stopped = whyNoMore(count, limits);
        break;
      }
      try {
        held.push(await rungRun.hold({ program: ["idle"], count: batch, isUnlimited: true }));
      } catch (error) {
        if (count === 0) throw error;
        stopped = error instanceof Error ? error.message : String(error);
        break;
      }
      await delay(SETTLE_MS);
      const pids = [...held.flatMap(({ launcher }) => descendants(launcher)), ...engine()];
      // A daemon grows with its instances: the growth counts as theirs.
      const pssKib = totalPssKib(pids) - enginePssKib;
      const hostKib = availableBefore - availableKib();
      steps.push({ count: count + batch, pssKib, hostKib });
      if (Math.max(pssKib, hostKib) >= budgetKib) stopped = "the budget is used up";
    }
  } finally {
    for (const one of held.reverse()) await one.release();
  }
  const end = densityEnd(steps, budgetKib, stopped);
  rungRun.density = end;
  const last = steps.at(-1);
  const pss = oneMoreKib(steps, ({ pssKib }) => pssKib);
  const host = oneMoreKib(steps, ({ hostKib }) => hostKib);
  return {
    density_count: end.started,
    density_pss_kib: last?.pssKib ?? 0,
    ...(pss === undefined ? {} : { density_one_more_kib: pss }),
    // Less than the processes hold: other programs gave memory back meanwhile, so this is no figure.
    ...(host === undefined || host < (pss ?? 0) ? {} : { density_host_one_more_kib: host }),
  };
}
