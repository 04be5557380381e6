// Control groups with the ladder's limits, on hosts with v1, v2 or both (hybrid: v1 has the controllers).
import { mkdirSync, readFileSync, readdirSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CPUS, MEMORY_MIB } from "./limits.js";

export type CgroupKind = "v1" | "hybrid" | "v2" | "none";

export interface CgroupLayout {
  readonly kind: CgroupKind;
  /** Mount points by controller (v1), or of the unified tree. */
  readonly memory: string | undefined;
  readonly cpu: string | undefined;
  readonly unified: string | undefined;
  /** Every hierarchy. */
  readonly mounts: readonly string[];
}

/** cpu.cfs_period_us and the period in cpu.max, `µs`. */
const PERIOD_US = 100_000;

export function cgroupLayout(mounts = readFileSync("/proc/self/mounts", "utf8")): CgroupLayout {
  const all = mounts
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .map(([, at = "", type, options = ""]) => ({ at, isV2: type === "cgroup2", options: options.split(",") }));
  const v1 = (controller: string): string | undefined =>
    all.find(({ isV2, options }) => !isV2 && options.includes(controller))?.at;
  const unified = all.find(({ isV2 }) => isV2)?.at;
  const memory = v1("memory");
  const hasV1 = all.some(({ isV2 }) => !isV2);
  const kind = hasV1 ? (unified === undefined ? "v1" : "hybrid") : unified === undefined ? "none" : "v2";
  return { kind, memory, cpu: v1("cpu"), unified, mounts: all.map(({ at }) => at) };
}

/** A folder, and what is written into its files. */
export interface GroupFolder {
  readonly folder: string;
  readonly files: readonly (readonly [file: string, value: string])[];
}

/** The group called `name` with the ladder's limits. Throws if there is no controller for them. */
export function limitedGroup(layout: CgroupLayout, name: string): GroupFolder[] {
  const bytes = String(MEMORY_MIB * 2 ** 20);
  const quota = String(CPUS * PERIOD_US);
  if (layout.kind === "v2" && layout.unified !== undefined) {
    const files = [
      ["memory.max", bytes],
      ["cpu.max", `${quota} ${String(PERIOD_US)}`],
    ] as const;
    return [{ folder: join(layout.unified, name), files }];
  }
  if (layout.memory === undefined || layout.cpu === undefined) {
    throw new Error("no control group hierarchy with memory and cpu is mounted");
  }
  return [
    { folder: join(layout.memory, name), files: [["memory.limit_in_bytes", bytes]] },
    {
      folder: join(layout.cpu, name),
      files: [
        ["cpu.cfs_period_us", String(PERIOD_US)],
        ["cpu.cfs_quota_us", quota],
      ],
    },
  ];
}

/** Makes a group for groups. In the unified tree, a group has the controllers that its parent enables for it. */
export function createParentGroup({ kind, unified }: CgroupLayout, name: string): void {
  if (kind !== "v2" || unified === undefined) return;
  mkdirSync(join(unified, name), { recursive: true });
  for (const folder of [unified, join(unified, name)]) {
    writeFileSync(join(folder, "cgroup.subtree_control"), "+memory +cpu");
  }
}

export function createGroup(folders: readonly GroupFolder[]): void {
  for (const { folder, files } of folders) {
    mkdirSync(folder, { recursive: true });
    for (const [file, value] of files) writeFileSync(join(folder, file), value);
  }
}

/** Until a group is tried again whose processes are ending, `ms`. */
const REMOVAL_PAUSE_MS = 20;

/** Removes a group with all groups in it; one that still has processes at `deadline` (performance.now(), `ms`) stays. */
export function removeGroupTree(folder: string, deadline = 0): void {
  if (statSync(folder, { throwIfNoEntry: false }) === undefined) return;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroupTree(join(folder, entry.name), deadline);
  }
  for (;;) {
    try {
      rmdirSync(folder);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
      // The sweep at the end, or that of the next run, removes it.
      if (performance.now() >= deadline) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, REMOVAL_PAUSE_MS);
    }
  }
}

/** The groups at the top of every hierarchy: what is new there later, engines have added. */
export function topGroups({ mounts }: CgroupLayout): Set<string> {
  return new Set(
    mounts.flatMap((mount) =>
      readdirSync(mount, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => join(mount, entry.name)),
    ),
  );
}
