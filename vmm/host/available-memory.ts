// What this host can give away just now.
import { readFileSync } from "node:fs";

const MIB = 2 ** 20;

/** `MiB`: free memory, what the caches hold, swap; no more than this process's cgroup may have. */
export function availableMemoryMib(): number {
  const text = readFileSync("/proc/meminfo", "latin1");
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
  const host = Math.floor((kib("MemAvailable") + kib("SwapFree")) / 1024);
  // Of a group without a limit, it is 0 or more than there is.
  const group = Math.floor(process.constrainedMemory() / MIB);
  return group > 0 ? Math.min(host, group) : host;
}
