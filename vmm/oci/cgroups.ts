// The control groups of a container on the host: those of its monitor, with all that the VM is. Version 1 (a hierarchy a
// controller) and version 2. OCI runtime-spec, "Control groups"; Linux: admin-guide/cgroup-v1, cgroup-v2.rst.
import { mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { ConfigError, HostError } from "../errors.js";
import type { OciResources } from "./runtime-spec.js";

/** What monitor and file server need beside the guest's memory, `bytes`. */
export const OVERHEAD_BYTES = 160 * 1024 * 1024;
/** Memory of a VM that was killed takes its time to be freed, `ms`. */
const REMOVE_LIMIT_MS = 15_000;
const RETRY_MS = 10;
/** The monitor and the file server have some 20 of their own. */
const MIN_TASKS = 64;
const USED = ["memory", "cpu", "cpuset", "cpuacct", "blkio", "freezer", "pids"];

export interface CgroupPaths {
  /** Controller of version 1, or "" for the one of version 2, to its folder. */
  readonly [controller: string]: string;
}

/** Throws HostError where the host has none. */
export function cgroupPaths(cgroupsPath: string | undefined, id: string, isSystemd: boolean): CgroupPaths {
  const path = isSystemd ? systemdPath(cgroupsPath, id) : (cgroupsPath ?? "") === "" ? `/${id}` : (cgroupsPath ?? "");
  const inside = isAbsolute(path) ? path : `/${path}`;
  if (inside.split("/").includes(".."))
    throw new ConfigError([`linux.cgroupsPath: ${path} leads out of the hierarchy`]);
  const paths: Record<string, string> = {};
  for (const { mountPoint, type, options } of cgroupMounts()) {
    if (type === "cgroup2") continue;
    for (const controller of options.filter((option) => USED.includes(option))) {
      paths[controller] ??= join(mountPoint, inside);
    }
  }
  if (Object.keys(paths).length > 0) return paths;
  const unified = cgroupMounts().find(({ type }) => type === "cgroup2");
  return unified === undefined ? {} : { "": join(unified.mountPoint, inside) };
}

/** "slice:prefix:name", where systemd has it. */
function systemdPath(cgroupsPath: string | undefined, id: string): string {
  const [slice = "", prefix = "", name = ""] = (cgroupsPath ?? "").split(":");
  if ((cgroupsPath ?? "") !== "" && (cgroupsPath ?? "").split(":").length !== 3) {
    throw new ConfigError([`linux.cgroupsPath: ${cgroupsPath ?? ""} is not SLICE:PREFIX:NAME`]);
  }
  const words = (slice === "" ? "system.slice" : slice).replace(/\.slice$/, "").split("-");
  const slices = words.map((_, index) => `${words.slice(0, index + 1).join("-")}.slice`);
  return join("/", ...slices, `${prefix === "" ? "vmlet" : prefix}-${name === "" ? id : name}.scope`);
}

interface CgroupMount {
  readonly mountPoint: string;
  readonly type: string;
  readonly options: readonly string[];
}

function cgroupMounts(): CgroupMount[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .map(([, mountPoint = "", type = "", options = ""]) => ({ mountPoint, type, options: options.split(",") }));
}

/** Makes them, with their limits. Throws HostError; what was made before stays for `removeCgroups`. */
export function makeCgroups(paths: CgroupPaths, resources: OciResources, memoryBytes: number): void {
  for (const [controller, path] of Object.entries(paths)) {
    attempt(path, () => {
      makeFolders(path, controller);
    });
  }
  setLimits(paths, resources, memoryBytes);
}

/** From the top of the hierarchy down: in version 1 a new cpuset is empty, in version 2 controllers are given on one by one. */
function makeFolders(path: string, controller: string): void {
  const parent = dirname(path);
  if (controller === "cpuset") {
    mkdirSync(path, { recursive: true });
    inherit(path, "cpuset.cpus");
    inherit(path, "cpuset.mems");
    return;
  }
  mkdirSync(path, { recursive: true });
  if (controller === "") {
    const known = readOrEmpty(join(parent, "cgroup.controllers")).trim().split(" ");
    for (const name of ["memory", "cpu", "cpuset", "io", "pids"]) {
      if (known.includes(name)) tryWrite(join(parent, "cgroup.subtree_control"), `+${name}`);
    }
  }
}

function inherit(path: string, file: string): string {
  const own = readOrEmpty(join(path, file)).trim();
  if (own !== "" || path === "/") return own;
  const above = inherit(dirname(path), file);
  if (above !== "") tryWrite(join(path, file), above);
  return above;
}

/** `memoryBytes`: the guest's; 0: there is no limit. Throws HostError. */
export function setLimits(
  paths: CgroupPaths,
  { cpu = {}, blockIO = {}, memory = {}, pids = {} }: OciResources,
  memoryBytes: number,
): void {
  const unified = paths[""];
  const put = (controller: string, file: string, value: number | string | undefined): void => {
    const folder = paths[controller];
    if (folder === undefined || value === undefined || value === "") return;
    attempt(folder, () => {
      writeFileSync(join(folder, file), String(value));
    });
  };
  const limit = memoryBytes === 0 ? undefined : memoryBytes + OVERHEAD_BYTES;
  const withOverhead = (bytes: number | undefined): number | undefined =>
    bytes === undefined || bytes <= 0 ? undefined : bytes + OVERHEAD_BYTES;
  const tasks = tasksOf(pids.limit);
  const quota = (cpu.quota ?? 0) === 0 ? undefined : cpu.quota;
  const shares = (cpu.shares ?? 0) === 0 ? undefined : cpu.shares;
  if (unified === undefined) {
    put("memory", "memory.limit_in_bytes", limit);
    put("memory", "memory.soft_limit_in_bytes", withOverhead(memory.reservation));
    // A kernel need not count swap.
    const swap = withOverhead(memory.swap);
    if (swap !== undefined) tryWrite(join(paths["memory"] ?? "", "memory.memsw.limit_in_bytes"), String(swap));
    put("memory", "memory.swappiness", memory.swappiness);
    if (memory.disableOOMKiller === true) put("memory", "memory.oom_control", 1);
    put("pids", "pids.max", tasks);
    put("cpu", "cpu.cfs_period_us", (cpu.period ?? 0) === 0 ? undefined : cpu.period);
    put("cpu", "cpu.cfs_quota_us", quota);
    put("cpu", "cpu.shares", shares);
    put("cpuset", "cpuset.cpus", cpu.cpus);
    put("cpuset", "cpuset.mems", cpu.mems);
    if ((blockIO.weight ?? 0) > 0) tryWrite(join(paths["blkio"] ?? "", "blkio.weight"), String(blockIO.weight));
    for (const { v1, at, rate } of throttles(blockIO)) put("blkio", `blkio.throttle.${v1}_device`, `${at} ${rate}`);
    return;
  }
  put("", "memory.max", limit);
  put("", "memory.low", withOverhead(memory.reservation));
  put("", "pids.max", tasks);
  if (quota !== undefined) put("", "cpu.max", `${quota < 0 ? "max" : String(quota)} ${String(cpu.period ?? 100_000)}`);
  if (shares !== undefined) put("", "cpu.weight", 1 + Math.floor(((Math.max(2, shares) - 2) * 9999) / 262_142));
  put("", "cpuset.cpus", cpu.cpus);
  put("", "cpuset.mems", cpu.mems);
  for (const { v2, at, rate } of throttles(blockIO)) put("", "io.max", `${at} ${v2}=${rate === "0" ? "max" : rate}`);
}

const THROTTLES = [
  ["throttleReadBpsDevice", "read_bps", "rbps"],
  ["throttleWriteBpsDevice", "write_bps", "wbps"],
  ["throttleReadIOPSDevice", "read_iops", "riops"],
  ["throttleWriteIOPSDevice", "write_iops", "wiops"],
] as const;

/** Of the host's devices, which the file server reads and writes. */
function throttles(blockIO: NonNullable<OciResources["blockIO"]>) {
  return THROTTLES.flatMap(([field, v1, v2]) =>
    (blockIO[field] ?? []).map(({ major, minor, rate }) => ({
      ...{ v1, v2, at: `${String(major)}:${String(minor)}`, rate: String(rate) },
    })),
  );
}

/** Tasks of the host's: of the monitor and the file server. What the guest starts is the VM's own. */
function tasksOf(limit = 0): number | string | undefined {
  if (limit === 0) return undefined;
  return limit < 0 ? "max" : Math.max(limit, MIN_TASKS);
}

/** From here on the process, and what it starts, counts there. Throws HostError. */
export function joinCgroups(paths: CgroupPaths, pid: number): void {
  for (const path of Object.values(paths)) {
    attempt(path, () => {
      writeFileSync(join(path, "cgroup.procs"), String(pid));
    });
  }
}

export function processesIn(paths: CgroupPaths): number[] {
  const all = Object.values(paths).flatMap((path) => readOrEmpty(join(path, "cgroup.procs")).split("\n"));
  return [...new Set(all.filter((line) => line !== "").map(Number))];
}

/** Ends what is left in them, and removes them. Rejects with HostError if that cannot be. */
export async function removeCgroups(paths: CgroupPaths): Promise<void> {
  for (const begun = performance.now(); performance.now() - begun < REMOVE_LIMIT_MS;) {
    for (const pid of processesIn(paths)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
    if (Object.values(paths).every(isRemoved)) return;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  throw new HostError(
    `Control group ${Object.values(paths)[0] ?? ""}: it cannot be removed: processes in it do not end`,
  );
}

function isRemoved(path: string): boolean {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) isRemoved(join(path, entry.name));
    rmdirSync(path);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

function attempt(path: string, task: () => void): void {
  try {
    task();
  } catch (error) {
    const { code = "", path: file = path } = error as NodeJS.ErrnoException;
    throw new HostError(`Control group ${file}: ${code}`, { cause: error });
  }
}

function tryWrite(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch {
    // The host's kernel does not have it.
  }
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
