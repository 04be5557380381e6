// A process by its number and the moment of its start: numbers come again, the two together do not.
import { readFileSync } from "node:fs";
import { bootId } from "../host/facts.js";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since the host's boot. proc(5), stat, field 22. */
  readonly startTicks: number;
  readonly boot: string;
}

export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, startTicks: startTicks(process.pid) ?? 0, boot: bootId() };
}

export function isAlive({ pid, startTicks: ticks, boot }: ProcessIdentity): boolean {
  return boot === bootId() && startTicks(pid) === ticks;
}

/** Undefined without such a process; one that has ended and waits for its parent is none. */
function startTicks(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${String(pid)}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The program's name, which comes second, may have blanks and brackets.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" || fields[0] === "X" ? undefined : Number(fields[19]);
}
