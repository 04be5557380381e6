// What this process holds of the kernel, for tests that leave nothing behind.
import { isDeepStrictEqual } from "node:util";
import { pool } from "../../vmm/machine/threads.js";
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";

export interface OwnResources {
  /** What the descriptors lead to, in order of the names. */
  readonly descriptors: readonly string[];
  readonly threads: number;
  /** Mappings of KVM, and large anonymous ones that are not the heap's: guest memory. */
  readonly vmMappings: number;
  /** POSIX timers. */
  readonly timers: number;
  /** What keeps the event loop waiting. */
  readonly eventLoop: readonly string[];
}

/** Guests in tests have this much memory or more, in bytes. */
const GUEST_BYTES = 16 * 2 ** 20;

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).replace(/:\[\d+\]$/, "");
  } catch {
    // The one that has just listed the folder.
    return "";
  }
}

/** MAP_NORESERVE shows as "nr" in smaps. */
function vmMappings(): number {
  return readFileSync("/proc/self/smaps", "utf8")
    .split(/^(?=[\da-f]+-[\da-f]+ )/m)
    .filter((mapping) => {
      const [start = "", end = ""] = (/^([\da-f]+)-([\da-f]+)/.exec(mapping) ?? []).slice(1);
      const isLarge = Number.parseInt(end, 16) - Number.parseInt(start, 16) >= GUEST_BYTES;
      return (
        mapping.includes("anon_inode:kvm") || (isLarge && / rw-p .*\n/.test(mapping) && /VmFlags:.* nr /.test(mapping))
      );
    }).length;
}

export function ownResources(): OwnResources {
  const timers = "/proc/self/timers";
  return {
    descriptors: readdirSync("/proc/self/fd")
      .map(targetOf)
      .filter((target) => target !== "" && !/^\/proc\/\d+\/fd$/.test(target))
      .sort(),
    threads: readdirSync("/proc/self/task").length,
    vmMappings: vmMappings(),
    timers: existsSync(timers) ? readFileSync(timers, "utf8").split(/^ID:/m).length - 1 : 0,
    eventLoop: process
      .getActiveResourcesInfo()
      .filter((name) => name !== "Immediate" && name !== "Timeout")
      .sort(),
  };
}

const SETTLE_MS = 100;
const SETTLE_TRIES = 50;

/** The same once it stays so, without the threads that wait for another vCPU. */
export async function settledResources(): Promise<OwnResources> {
  await pool.endIdle();
  let last = ownResources();
  for (let tries = 0; tries < SETTLE_TRIES; tries++) {
    await new Promise((done) => setTimeout(done, SETTLE_MS));
    const now = ownResources();
    if (isDeepStrictEqual(now, last)) return now;
    last = now;
  }
  return last;
}
