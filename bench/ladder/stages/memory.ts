// What idle instances add on the host, and which of their namespaces are their own.
import { readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Sample } from "../../harness.js";
import { PROBE, type Climber } from "../climber.js";
import { commandLine, descendants, totalPssKib } from "../processes.js";

/** After the first output, engines still tidy up, `ms`. */
const SETTLE_MS = 300;
const NAMESPACES = ["uts", "ipc", "pid", "mnt", "net", "user", "cgroup", "time"];

/** Undefined for a process that has ended. */
function namespaceOf(pid: number | "self", kind: string): string | undefined {
  try {
    return readlinkSync(`/proc/${String(pid)}/ns/${kind}`);
  } catch {
    return undefined;
  }
}

/** Undefined where no process of the host is the program: in a VM. */
function ownNamespaces(pids: readonly number[]): string[] | undefined {
  const probe = pids.find((pid) => {
    const [file, what] = commandLine(pid);
    return file?.endsWith(PROBE) === true && what === "idle";
  });
  if (probe === undefined) return undefined;
  return NAMESPACES.filter((kind) => namespaceOf(probe, kind) !== namespaceOf("self", kind));
}

function engineProcesses({ engine }: Climber): number[] {
  return engine === undefined ? [] : descendants(engine);
}

/** Starts `count` idle instances and looks at their processes: below the launcher, and new below the engine. */
async function withIdle<T>(climber: Climber, count: number, look: (pids: readonly number[]) => T): Promise<T> {
  const before = engineProcesses(climber);
  const held = await climber.hold(count);
  try {
    await delay(SETTLE_MS);
    const added = engineProcesses(climber).filter((pid) => !before.includes(pid));
    return look([...descendants(held.launcher), ...added]);
  } finally {
    await held.release();
  }
}

export async function memoryTurn(climber: Climber): Promise<Sample> {
  const engine = engineProcesses(climber);
  const engineKib: Sample = engine.length === 0 ? {} : { engine_pss_kib: totalPssKib(engine) };
  return withIdle(climber, 1, (pids) => {
    climber.namespaces = ownNamespaces(pids);
    return { idle_pss_kib: totalPssKib(pids), idle_processes_count: pids.length, ...engineKib };
  });
}

/**
 * More and more idle instances, by steps, until their memory goes beyond the budget. `density_count`
 * is the last step that kept within; the further ones are what one more instance costs.
 */
export async function densityTurn(climber: Climber, steps: readonly number[], budgetMib: number): Promise<Sample> {
  const seen: { count: number; kib: number }[] = [];
  for (const count of steps) {
    const kib = await withIdle(climber, count, totalPssKib);
    if (kib > budgetMib * 1024) break;
    seen.push({ count, kib });
  }
  const [first] = seen;
  const last = seen.at(-1);
  if (first === undefined || last === undefined)
    throw new Error(`one instance needs more than ${String(budgetMib)} MiB`);
  const more = last.count - first.count;
  return {
    density_count: last.count,
    density_pss_kib: last.kib,
    ...(more === 0 ? {} : { density_one_more_kib: (last.kib - first.kib) / more }),
  };
}
