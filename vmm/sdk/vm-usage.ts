// What a VM's process uses of this host, from /proc.
import { readFileSync } from "node:fs";
import { VmStateError } from "../errors.js";

export interface VmUsage {
  /** `ms` of processor time, in user mode and in the kernel, guest included. */
  readonly cpuMs: number;
  /** `bytes` that are in memory now. */
  readonly residentBytes: number;
  readonly threads: number;
}

const TICK_MS = 10;
const PAGE_BYTES = 4096;

/** Throws VmStateError without such a process. */
export function vmStatistics(pid: number): VmUsage {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${String(pid)}/stat`, "latin1");
  } catch {
    throw new VmStateError("stats", "stopped", "has ended");
  }
  // proc(5): the fields behind the program's name, the third on.
  const fields = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const [userTicks = 0, systemTicks = 0] = fields.slice(11, 13);
  return {
    cpuMs: (userTicks + systemTicks) * TICK_MS,
    threads: fields[17] ?? 0,
    residentBytes: (fields[21] ?? 0) * PAGE_BYTES,
  };
}
