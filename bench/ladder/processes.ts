// The tree of processes and their memory: /proc/PID/stat and smaps_rollup.
import { readFileSync, readdirSync } from "node:fs";

/** Text of a file of /proc, or undefined if the process has ended meanwhile. */
function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined;
  }
}

function parents(): Map<number, number> {
  const found = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // The name in parentheses may hold anything, even ") ".
    const parent = /\) \S (\d+) [^)]*$/.exec(readProc(`/proc/${name}/stat`) ?? "")?.[1];
    if (parent !== undefined) found.set(Number(name), Number(parent));
  }
  return found;
}

/** All processes below `ancestor`, without it. */
export function descendants(ancestor: number): number[] {
  const all = [...parents()];
  const found: number[] = [];
  for (let layer = [ancestor]; layer.length > 0;) {
    layer = all.filter(([, parent]) => layer.includes(parent)).map(([pid]) => pid);
    found.push(...layer);
  }
  return found;
}

/** Proportional set size, `KiB`; 0 for a process that has ended. */
export function pssKib(pid: number): number {
  const text = readProc(`/proc/${String(pid)}/smaps_rollup`) ?? "";
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0);
}

export function totalPssKib(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + pssKib(pid), 0);
}

/** Text of /proc/PID/status, or undefined for a process that has ended. */
export function statusOf(pid: number): string | undefined {
  return readProc(`/proc/${String(pid)}/status`);
}

export function commandLine(pid: number): string[] {
  return (readProc(`/proc/${String(pid)}/cmdline`) ?? "").split("\0").slice(0, -1);
}
