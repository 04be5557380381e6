// The servers of shared folders that run on this host.
import { readdirSync, readFileSync } from "node:fs";

/** Processes that are not dead and serve this folder, or one whose path begins so. */
export function serversOf(folder: string): number[] {
  // As the server's command line has it.
  const path = folder.replace(/[\\,]/g, "\\$&");
  return readdirSync("/proc")
    .filter((pid) => {
      try {
        const isOne = readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`source=${path}`);
        return isOne && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
      } catch {
        return false;
      }
    })
    .map(Number);
}
