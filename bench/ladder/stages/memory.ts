// What an instance adds on the host, idle and after its work, and which of their namespaces are their own.
import { readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Sample } from "../../harness.js";
import { PROBE, type RungRun } from "../rung-run.js";
import { commandLine, descendants, statusOf, totalPssKib } from "../processes.js";
import type { Outside } from "../result.js";

/** Engines still work for a while after the first output, `ms`. */
export const SETTLE_MS = 300;
/** Between the program's first output and its work: long enough to measure its memory, `ms`. */
const PAUSE_MS = 1000;
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
function probeAmong(pids: readonly number[]): number | undefined {
  return pids.find((pid) => {
    const [file, what] = commandLine(pid);
    return file?.endsWith(PROBE) === true && what?.startsWith("idle") === true;
  });
}

function ownNamespaces(probe: number): string[] {
  return NAMESPACES.filter((kind) => namespaceOf(probe, kind) !== namespaceOf("self", kind));
}

const SECCOMP_MODE_FILTER = "2";

export function parseStatus(status: string): Outside {
  const field = (pattern: RegExp): string => {
    const found = pattern.exec(status)?.[1];
    if (found === undefined) throw new Error(`/proc/PID/status without ${String(pattern)}`);
    return found;
  };
  const bits = BigInt(`0x${field(/^CapEff:\s*([0-9a-f]+)/m)}`).toString(2);
  return {
    uid: Number(field(/^Uid:\s*\d+\s+(\d+)/m)),
    capabilities: bits.replaceAll("0", "").length,
    has_filter: field(/^Seccomp:\s*(\d)/m) === SECCOMP_MODE_FILTER,
  };
}

/** The program, or the monitor that holds it: the biggest of a VM's processes. */
function lookFromOutside(rungRun: RungRun, pids: readonly number[]): void {
  const probe = probeAmong(pids);
  const [biggest] = pids.toSorted((a, b) => totalPssKib([b]) - totalPssKib([a]));
  const status = statusOf(probe ?? biggest ?? 0);
  if (status !== undefined) rungRun.outside = parseStatus(status);
  if (probe !== undefined) rungRun.namespaces = ownNamespaces(probe);
}

function engineProcesses({ engine }: RungRun): number[] {
  return engine === undefined ? [] : descendants(engine);
}

/**
 * One instance: idle when it has come up, then after it has done all the work of the stage "work". What a VM's kernel has
 * touched by then (page cache, slabs) stays with the host, unlike what a process has given back.
 */
export async function memoryTurn(rungRun: RungRun, budgetMs: number): Promise<Sample> {
  const engine = engineProcesses(rungRun);
  const engineKib: Sample = engine.length === 0 ? {} : { engine_pss_kib: totalPssKib(engine) };
  const program = ["idle-work-idle", String(PAUSE_MS), String(budgetMs)];
  const held = await rungRun.hold({ program, equipment: rungRun.disk() });
  const added = (): number[] => [
    ...descendants(held.launcher),
    ...engineProcesses(rungRun).filter((pid) => !engine.includes(pid)),
  ];
  try {
    await delay(SETTLE_MS);
    const idle = added();
    const idleKib = totalPssKib(idle);
    lookFromOutside(rungRun, idle);
    if (held.isAgain()) throw new Error("the program worked before it could be looked at");
    await held.again();
    await delay(SETTLE_MS);
    return {
      idle_pss_kib: idleKib,
      idle_processes_count: idle.length,
      after_work_pss_kib: totalPssKib(added()),
      ...engineKib,
    };
  } finally {
    await held.release();
  }
}
