// The limits of a container on the host, which hold for its VM as a whole: config.json's linux.resources in the files of its
// control groups. Linux: admin-guide/cgroup-v1, cgroup-v2.rst.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import type { CgroupPaths } from "./cgroups.js";
import type { OciBlockIo, OciResources } from "./runtime-spec.js";

/** What monitor and file server need beside the guest's memory, `bytes`. */
export const OVERHEAD_BYTES = 160 * 1024 * 1024;
/** The monitor and the file server have some 20 of their own. */
const MIN_TASKS = 64;
/** Linux: scheduler/sched-bwc.rst */
export const DEFAULT_PERIOD_US = 100_000;
const MAX_SHARES = 262_144;

/** A file, what is to be in it, and whether the kernel need not have it. */
interface Setting {
  readonly controller: string;
  readonly file: string;
  readonly value: string;
  readonly isOptional?: boolean;
}

/** `memoryBytes`: the guest's; 0: there is no limit. Throws HostError for what the kernel refuses. */
export function setLimits(paths: CgroupPaths, resources: OciResources, memoryBytes: number): void {
  const isUnified = paths[""] !== undefined;
  const settings = isUnified ? unifiedSettings(resources, memoryBytes) : settingsOfV1(resources, memoryBytes);
  for (const setting of settings) apply(paths, setting);
}

function apply(paths: CgroupPaths, { controller, file, value, isOptional = false }: Setting): void {
  const folder = paths[controller];
  if (folder === undefined) return;
  const path = join(folder, file);
  try {
    writeFileSync(path, value);
  } catch (error) {
    if (isOptional) return;
    const { code = String(error) } = error as NodeJS.ErrnoException;
    throw new HostError(`Control group: ${JSON.stringify(value)} in ${path}: ${errnoText(code)}`, { cause: error });
  }
}

function settingsOfV1({ cpu = {}, blockIO = {}, memory = {}, pids = {} }: OciResources, guest: number): Setting[] {
  const settings: Setting[] = [];
  const put = (controller: string, file: string, value: number | string | undefined, isOptional = false): void => {
    if (value !== undefined && value !== "") settings.push({ controller, file, value: String(value), isOptional });
  };
  const limit = guest === 0 ? undefined : guest + OVERHEAD_BYTES;
  const swap = withOverhead(memory.swap);
  // With swap counted in, neither may pass the other on its way up or down; a kernel need not count swap.
  put("memory", "memory.memsw.limit_in_bytes", swap, true);
  put("memory", "memory.limit_in_bytes", limit);
  put("memory", "memory.memsw.limit_in_bytes", swap, true);
  put("memory", "memory.soft_limit_in_bytes", withOverhead(memory.reservation));
  put("memory", "memory.swappiness", memory.swappiness, true);
  if (memory.disableOOMKiller === true) put("memory", "memory.oom_control", 1, true);
  put("pids", "pids.max", tasksOf(pids.limit));
  put("cpu", "cpu.cfs_period_us", positive(cpu.period));
  put("cpu", "cpu.cfs_quota_us", cpu.quota === 0 ? undefined : cpu.quota);
  put("cpu", "cpu.cfs_burst_us", cpu.burst, true);
  put("cpu", "cpu.shares", positive(cpu.shares));
  put("cpu", "cpu.idle", cpu.idle, true);
  put("cpuset", "cpuset.cpus", cpu.cpus);
  put("cpuset", "cpuset.mems", cpu.mems);
  put("blkio", "blkio.weight", positive(blockIO.weight), true);
  put("blkio", "blkio.bfq.weight", positive(blockIO.weight), true);
  for (const { name, major, minor, rate } of throttles(blockIO)) {
    put("blkio", `blkio.throttle.${name.v1}`, `${String(major)}:${String(minor)} ${String(rate)}`);
  }
  return settings;
}

function unifiedSettings(resources: OciResources, guest: number): Setting[] {
  const { cpu = {}, blockIO = {}, memory = {}, pids = {}, unified = {} } = resources;
  const settings: Setting[] = [];
  const put = (file: string, value: number | string | undefined, isOptional = false): void => {
    if (value !== undefined && value !== "") settings.push({ controller: "", file, value: String(value), isOptional });
  };
  put("memory.max", guest === 0 ? undefined : guest + OVERHEAD_BYTES);
  put("memory.low", withOverhead(memory.reservation));
  const { limit = 0, swap = 0 } = memory;
  // Here swap counts apart.
  if (swap < 0) put("memory.swap.max", "max", true);
  else if (swap > 0 && limit > 0) put("memory.swap.max", Math.max(0, swap - limit), true);
  put("pids.max", tasksOf(pids.limit));
  const quota = positive(cpu.quota) ?? (cpu.quota === -1 ? "max" : undefined);
  const period = positive(cpu.period);
  if (quota !== undefined) put("cpu.max", `${String(quota)} ${String(period ?? DEFAULT_PERIOD_US)}`);
  else if (period !== undefined) put("cpu.max", `max ${String(period)}`);
  put("cpu.max.burst", cpu.burst, true);
  const shares = positive(cpu.shares);
  if (shares !== undefined) put("cpu.weight", weightOf(shares));
  put("cpu.idle", cpu.idle, true);
  put("cpuset.cpus", cpu.cpus);
  put("cpuset.mems", cpu.mems);
  put("io.weight", positive(blockIO.weight), true);
  put("io.bfq.weight", positive(blockIO.weight), true);
  for (const { name, major, minor, rate } of throttles(blockIO)) {
    put("io.max", `${String(major)}:${String(minor)} ${name.v2}=${rate === 0 ? "max" : String(rate)}`);
  }
  for (const [file, value] of Object.entries(unified)) put(file, withOverheadIn(file, value));
  return settings;
}

/** From 2 to 262,144, to 1 to 10,000. */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((Math.min(MAX_SHARES, Math.max(2, shares)) - 2) * 9999) / (MAX_SHARES - 2));
}

/** Limits by the names of version 2 are the container's, too. */
function withOverheadIn(file: string, value: string): string {
  return ["memory.max", "memory.high"].includes(file) && /^\d+$/.test(value)
    ? String(Number(value) + OVERHEAD_BYTES)
    : value;
}

function positive(value: number | undefined): number | undefined {
  return value === undefined || value <= 0 ? undefined : value;
}

/** -1: none. */
function withOverhead(bytes: number | undefined): number | undefined {
  if (bytes === undefined || bytes === 0) return undefined;
  return bytes < 0 ? -1 : bytes + OVERHEAD_BYTES;
}

/** Tasks of the host's: of the monitor and the file server. What the guest starts is the VM's own. */
function tasksOf(limit = 0): number | string | undefined {
  if (limit === 0) return undefined;
  return limit < 0 ? "max" : Math.max(limit, MIN_TASKS);
}

const THROTTLES = [
  ["throttleReadBpsDevice", { v1: "read_bps_device", v2: "rbps" }],
  ["throttleWriteBpsDevice", { v1: "write_bps_device", v2: "wbps" }],
  ["throttleReadIOPSDevice", { v1: "read_iops_device", v2: "riops" }],
  ["throttleWriteIOPSDevice", { v1: "write_iops_device", v2: "wiops" }],
] as const;

function throttles(blockIo: OciBlockIo) {
  return THROTTLES.flatMap(([field, name]) => (blockIo[field] ?? []).map((device) => ({ ...device, name })));
}
