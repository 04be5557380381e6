// A guest that ran out of memory is nothing that the host's kernel has seen, and engines ask that one: their OOMKilled, `oom` event and
// Kubernetes' reason come from the container's control group. So it happens there, too, once the VM is gone: to a process
// made for that. Linux: admin-guide/cgroup-v1/memory.rst, "OOM Control"; cgroup-v2.rst, memory.events.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CgroupPaths } from "./cgroups.js";

/** Beside what this process has, and less than the victim takes, `bytes`. */
const ROOM = 8 * 1024 * 1024;
/** What cannot be reclaimed is not known exactly. */
const TRIES = 8;
const VICTIM_LIMIT_MS = 5000;
/** Until whoever watches the group has told of it: a shim says nothing of a group that has gone by then, `ms`. */
const TOLD_MS = 100;
/** The kernel takes the one with the highest score. It doubles a text of one character up to 128 MiB. */
const VICTIM =
  "echo 1000 > /proc/self/oom_score_adj || exit 0; x=x; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27; do x=$x$x; done";

interface Files {
  readonly limit: string;
  readonly usage: string;
  /** Written first: [file, text]. */
  readonly noSwap: readonly [string, string];
}

/** To be called when the VM has ended, and this process is about to. Does nothing where the group has no such files. */
export async function raiseOutOfMemory(paths: CgroupPaths): Promise<void> {
  const files = filesOf(paths);
  if (files === undefined || !lower(files)) return;
  const child = spawn("/bin/sh", ["-c", VICTIM], { stdio: "ignore", cwd: "/", timeout: VICTIM_LIMIT_MS });
  await new Promise<void>((done) => {
    child.once("error", () => {
      done();
    });
    child.once("exit", () => {
      setTimeout(done, TOLD_MS);
    });
  });
}

function filesOf(paths: CgroupPaths): Files | undefined {
  const { "": unified, memory } = paths;
  if (unified !== undefined) {
    const at = (name: string): string => join(unified, name);
    return { limit: at("memory.max"), usage: at("memory.current"), noSwap: [at("memory.swap.max"), "0"] };
  }
  if (memory === undefined) return undefined;
  const at = (name: string): string => join(memory, name);
  // Whoever is short of memory would wait for ever, this process too.
  if (isDisabled(at("memory.oom_control"))) return undefined;
  return {
    limit: at("memory.limit_in_bytes"),
    usage: at("memory.usage_in_bytes"),
    noSwap: [at("memory.swappiness"), "0"],
  };
}

function isDisabled(control: string): boolean {
  try {
    return readFileSync(control, "latin1").includes("oom_kill_disable 1");
  } catch {
    return false;
  }
}

/** To little more than what cannot be reclaimed. */
function lower({ limit, usage, noSwap: [file, text] }: Files): boolean {
  put(file, text);
  try {
    const used = Number(readFileSync(usage, "latin1"));
    for (let tenths = 1; tenths <= TRIES; tenths++) {
      // Version 1 refuses a limit below what is left; version 2 would kill for it.
      const bytes = limit.endsWith("memory.max") ? used : Math.floor((used * tenths) / TRIES);
      if (put(limit, String(bytes + ROOM))) return true;
    }
  } catch {
    // There is no such group any more.
  }
  return false;
}

function put(file: string, text: string): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch {
    return false;
  }
}
