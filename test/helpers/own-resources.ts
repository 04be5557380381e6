// What this process holds of the kernel, for tests that leave nothing behind.
import { isDeepStrictEqual } from "node:util";
import { pool } from "../../vmm/machine/threads.js";
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";

export interface OwnResources {
  /** What the descriptors lead to, in order of the names. */
  readonly descriptors: readonly string[];
  readonly threads: number;
  /** Mappings of KVM, and large anonymous ones that are not the heap's or malloc's: guest memory. */
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

interface Mapping {
  readonly start: number;
  readonly end: number;
  readonly access: string;
  readonly text: string;
}

function mappings(): readonly Mapping[] {
  return readFileSync("/proc/self/smaps", "utf8")
    .split(/^(?=[\da-f]+-[\da-f]+ )/m)
    .map((text) => {
      const [start = "", end = "", access = ""] = (/^([\da-f]+)-([\da-f]+) (\S+)/.exec(text) ?? []).slice(1);
      return { start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), access, text };
    });
}

/** glibc's malloc has such an area for some threads, which it makes accessible from its start as far as it needs. */
const ARENA_BYTES = 64 * 2 ** 20;

function isArena({ start, end }: Mapping, next: Mapping | undefined): boolean {
  return start % ARENA_BYTES === 0 && next?.start === end && next.access === "---p" && next.end === start + ARENA_BYTES;
}

/** MAP_NORESERVE shows as "nr" in smaps. */
function vmMappings(): number {
  return mappings().filter((mapping, index, all) => {
    const { start, end, access, text } = mapping;
    const isLarge = end - start >= GUEST_BYTES && access === "rw-p" && /VmFlags:.* nr /.test(text);
    return text.includes("anon_inode:kvm") || (isLarge && !isArena(mapping, all[index + 1]));
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
