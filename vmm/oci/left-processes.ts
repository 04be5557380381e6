// Processes of a container that no record names, because whoever would have written it was killed: a monitor, and hooks. They are
// found by what they were given.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive, statFields, type ProcessIdentity } from "../sdk/process-identity.js";
import { killProcess } from "./kill-process.js";
import { MONITOR_COMMAND, type Container } from "./state.js";

const LOOK_MS = 5;

/** Ends it with SIGKILL, and waits until it has; `limitMs` at most. */
export async function endProcess(identity: ProcessIdentity, limitMs: number): Promise<void> {
  const begun = performance.now();
  while (isAlive(identity) && performance.now() - begun < limitMs) {
    killProcess(identity.pid);
    await sleep(LOOK_MS);
  }
}

/** The same, for all of these, and all that come to them meanwhile. */
export async function endFound(find: () => number[], limitMs: number): Promise<void> {
  const begun = performance.now();
  for (let found = find(); found.length > 0 && performance.now() - begun < limitMs; found = find()) {
    for (const pid of found) killProcess(pid);
    await sleep(LOOK_MS);
  }
}

/** Monitors of the container that live. */
export function monitorsOf(container: Container): number[] {
  const end = `\0${MONITOR_COMMAND}\0${container.folder}\0`;
  return livingProcesses((pid) => readFileSync(`/proc/${String(pid)}/cmdline`, "utf8").endsWith(end));
}

/** Processes that have one of these files as their standard input. */
export function readersOf(files: readonly string[]): number[] {
  const wanted = new Set(files.map((path) => fileIdentity(path)).filter((one) => one !== undefined));
  if (wanted.size === 0) return [];
  return livingProcesses((pid) => wanted.has(fileIdentity(`/proc/${String(pid)}/fd/0`) ?? ""));
}

function fileIdentity(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : `${String(stat.dev)}:${String(stat.ino)}`;
}

function livingProcesses(isWanted: (pid: number) => boolean): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return pid !== process.pid && isWanted(pid) && !["Z", "X"].includes(statFields(pid)?.[0] ?? "X");
      } catch {
        // It has ended meanwhile.
        return false;
      }
    });
}
