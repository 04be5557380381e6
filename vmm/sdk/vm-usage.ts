// What a VM's process uses of this host, from /proc.
import { VmStateError } from "../errors.js";
import { statFields } from "./process-identity.js";

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
  const fields = statFields(pid)?.map(Number);
  if (fields === undefined) throw new VmStateError("stats", "stopped", "has ended");
  const [userTicks = 0, systemTicks = 0] = fields.slice(11, 13);
  return {
    cpuMs: (userTicks + systemTicks) * TICK_MS,
    threads: fields[17] ?? 0,
    residentBytes: (fields[21] ?? 0) * PAGE_BYTES,
  };
}
