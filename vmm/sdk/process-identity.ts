// A process by its number and the moment of its start: numbers come again, the two together do not.
import { readFileSync } from "node:fs";
import { bootId } from "../host/facts.js";
import { statFieldsOf } from "../host/stat-line.js";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since the host's boot. proc(5), stat, field 22. */
  readonly startTicks: number;
  readonly boot: string;
}

export function ownIdentity(): ProcessIdentity {
  return identityOf(process.pid);
}

export function identityOf(pid: number): ProcessIdentity {
  return { pid, startTicks: startTicks(pid) ?? 0, boot: bootId() };
}

export function isSame(one: ProcessIdentity, other: ProcessIdentity): boolean {
  return one.pid === other.pid && one.startTicks === other.startTicks && one.boot === other.boot;
}

export function isAlive({ pid, startTicks: ticks, boot }: ProcessIdentity): boolean {
  return boot === bootId() && startTicks(pid) === ticks;
}

/** The fields of proc(5), stat, from the third on; undefined without such a process. */
export function statFields(pid: number): string[] | undefined {
  try {
    return statFieldsOf(readFileSync(`/proc/${String(pid)}/stat`, "latin1"));
  } catch {
    return undefined;
  }
}

/** Undefined without such a process; one that has ended and waits for its parent is none. */
function startTicks(pid: number): number | undefined {
  const fields = statFields(pid);
  return fields === undefined || fields[0] === "Z" || fields[0] === "X" ? undefined : Number(fields[19]);
}
