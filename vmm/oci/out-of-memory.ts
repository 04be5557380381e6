// A guest that ran out of memory is nothing that the host's kernel has seen, and engines ask that one: their OOMKilled, `oom` event and
// Kubernetes' reason come from the container's control group. So it happens there, too, once the VM is gone: to a process
// made for that. Linux: admin-guide/cgroup-v1/memory.rst, "OOM Control"; cgroup-v2.rst, memory.events.
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { streamPair } from "../sys/sockets.js";
import type { CgroupPaths } from "./cgroups.js";

/** Beside what the others have, and less than the victim takes, `bytes`. */
const ROOM = 8 * 1024 * 1024;
const VICTIM_LIMIT_MS = 5000;
/** Until whoever watches the group has told of it: a shim says nothing of a group that has gone by then, `ms`. */
const TOLD_MS = 100;

/**
 * A shell's, with the group's files as its words: of the limit, of the usage, and of what keeps it from swapping. Once it is told to, it
 * lowers the limit to little more than what cannot be reclaimed, which is not known exactly; version 1 refuses one below that, version 2
 * would kill for it. Of several processes the kernel takes the one with the highest score. It doubles a text of one character up to
 * 128 MiB.
 */
const VICTIM = `
read -r go && [ "$go" = go ] || exit 0
echo 0 > "$3"
read -r used < "$2" || exit 0
case $1 in */memory.max) first=8;; *) first=1;; esac
for part in 1 2 3 4 5 6 7 8 0; do
  [ $part = 0 ] && exit 0
  [ $part -ge $first ] && echo $((used / 8 * part + ${String(ROOM)})) > "$1" && break
done
echo 1000 > /proc/self/oom_score_adj || exit 0
x=x; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27; do x=$x$x; done`;

/** A process of the container's memory group that waits to be its victim, and does no more than that. It ends with this process. */
export class OutOfMemory {
  readonly #victim: ChildProcess;
  readonly #toVictim: number;

  private constructor(files: readonly string[]) {
    const [own, other] = streamPair();
    try {
      const words = ["-c", VICTIM, "out-of-memory", ...files];
      this.#victim = spawn("/bin/sh", words, { stdio: [other, "ignore", "ignore"], cwd: "/" });
    } finally {
      closeSync(other);
    }
    this.#toVictim = own;
    // Without it, nothing is seen of it.
    this.#victim.on("error", () => undefined);
    this.#victim.unref();
  }

  /** For a process of the group. Undefined where the group has no such files. */
  static prepare(paths: CgroupPaths): OutOfMemory | undefined {
    const files = filesOf(paths);
    return files === undefined ? undefined : new OutOfMemory(files);
  }

  /** To be called when the VM has ended, and this process is about to. */
  async raise(): Promise<void> {
    if (this.#victim.pid === undefined || this.#victim.exitCode !== null) return;
    await new Promise<void>((done) => {
      const limit = setTimeout(done, VICTIM_LIMIT_MS);
      this.#victim.once("exit", () => {
        clearTimeout(limit);
        setTimeout(done, TOLD_MS);
      });
      this.#victim.ref();
      try {
        writeSync(this.#toVictim, "go\n");
      } catch {
        // It has gone: its end is told.
      }
    });
  }
}

function filesOf(paths: CgroupPaths): readonly string[] | undefined {
  const { "": unified, memory } = paths;
  if (unified !== undefined)
    return ["memory.max", "memory.current", "memory.swap.max"].map((name) => join(unified, name));
  if (memory === undefined) return undefined;
  // Whoever is short of memory would wait for ever, this process too.
  if (isDisabled(join(memory, "memory.oom_control"))) return undefined;
  return ["memory.limit_in_bytes", "memory.usage_in_bytes", "memory.swappiness"].map((name) => join(memory, name));
}

function isDisabled(control: string): boolean {
  try {
    return readFileSync(control, "latin1").includes("oom_kill_disable 1");
  } catch {
    return false;
  }
}
