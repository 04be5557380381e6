// The control groups of a container on the host: those of its monitor, with all that the VM is. Version 1 (a hierarchy a
// controller) and version 2. OCI runtime-spec, "Control groups"; Linux: admin-guide/cgroup-v1, cgroup-v2.rst.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { ConfigError, HostError } from "../errors.js";
import { bootId } from "../host/facts.js";
import type { ProcessIdentity } from "../sdk/process-identity.js";
import { killProcess } from "./kill-process.js";

/** Memory of a VM that was killed takes its time to be freed, `ms`. */
const REMOVE_LIMIT_MS = 15_000;
const RETRY_MS = 10;
const USED = ["memory", "cpu", "cpuset", "cpuacct", "blkio", "freezer", "pids"];

export interface CgroupPaths {
  /** Controller of version 1, or "" for the one of version 2, to its folder. */
  readonly [controller: string]: string;
}

/** Throws HostError where the host has none. */
export function cgroupPaths(cgroupsPath: string | undefined, id: string, isSystemd: boolean): CgroupPaths {
  const path = isSystemd ? systemdPath(cgroupsPath, id) : (cgroupsPath ?? "") === "" ? `/${id}` : (cgroupsPath ?? "");
  const inside = isAbsolute(path) ? path : `/${path}`;
  if (/^\/*$/.test(inside)) throw new ConfigError([`linux.cgroupsPath: ${path} is the top of the hierarchy`]);
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

/** Whoever is in a group is another's, and would end with it. Throws ConfigError. */
export function checkCgroups(paths: CgroupPaths): void {
  for (const path of Object.values(paths)) {
    const count = tasksBelow(path);
    if (count > 0) {
      throw new ConfigError([`container's cgroup ${path} is not empty: ${String(count)} process(es) found`]);
    }
  }
}

function tasksBelow(path: string): number {
  let count = linesOf(join(path, "cgroup.procs")).length;
  try {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory()) count += tasksBelow(join(path, entry.name));
    }
  } catch {
    // It is not there, or goes in this moment.
  }
  return count;
}

/** Throws HostError; what was made before stays for `removeCgroups`. */
export function makeCgroups(paths: CgroupPaths): void {
  for (const [controller, path] of Object.entries(paths)) {
    attempt(path, () => {
      makeFolders(path, controller);
    });
  }
}

/** From the top of the hierarchy down: in version 1 a new cpuset is empty, in version 2 controllers are given on one by one. */
function makeFolders(path: string, controller: string): void {
  mkdirSync(path, { recursive: true });
  if (controller === "cpuset") {
    inherit(path, "cpuset.cpus");
    inherit(path, "cpuset.mems");
  }
  if (controller === "") giveOnControllers(dirname(path));
}

/** What is above gives them on to what is below; a group that has processes of its own cannot. */
function giveOnControllers(folder: string): void {
  if (!existsSync(join(folder, "cgroup.controllers"))) return;
  giveOnControllers(dirname(folder));
  const known = readOrEmpty(join(folder, "cgroup.controllers")).trim().split(" ");
  for (const name of ["memory", "cpu", "cpuset", "io", "pids"]) {
    if (known.includes(name)) tryWrite(join(folder, "cgroup.subtree_control"), `+${name}`);
  }
}

function inherit(path: string, file: string): string {
  const own = readOrEmpty(join(path, file)).trim();
  if (own !== "" || path === "/") return own;
  const above = inherit(dirname(path), file);
  if (above !== "") tryWrite(join(path, file), above);
  return above;
}

/** From here on the process, and what it starts, counts there. Throws HostError. */
export function joinCgroups(paths: CgroupPaths, pid: number): void {
  for (const path of Object.values(paths)) {
    const file = join(path, "cgroup.procs");
    attempt(path, () => {
      // To move it again to where it is costs the kernel as much.
      if (!linesOf(file).includes(String(pid))) writeFileSync(file, String(pid));
    });
  }
}

export function processesIn(paths: CgroupPaths): number[] {
  const all = Object.values(paths).flatMap((path) => linesOf(join(path, "cgroup.procs")));
  return [...new Set(all.map(Number))];
}

/**
 * Ends what is left in them, and removes them; those of an earlier boot of the host, when `owner` lived, may be another's by
 * now. Rejects with HostError if that cannot be.
 */
export async function removeCgroups(paths: CgroupPaths, owner: ProcessIdentity | undefined): Promise<void> {
  if (owner !== undefined && owner.boot !== bootId() && Object.values(paths).some((path) => tasksBelow(path) > 0))
    return;
  for (const begun = performance.now(); performance.now() - begun < REMOVE_LIMIT_MS;) {
    for (const pid of processesIn(paths)) killProcess(pid);
    if (Object.values(paths).map(isRemoved).every(Boolean)) return;
    thaw(paths);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  throw new HostError(
    `Control group ${Object.values(paths)[0] ?? ""}: it cannot be removed: processes in it do not end`,
  );
}

/** In version 1 what is frozen does not end. */
function thaw({ freezer }: CgroupPaths): void {
  if (freezer !== undefined) tryWrite(join(freezer, "freezer.state"), "THAWED");
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

function linesOf(file: string): string[] {
  return readOrEmpty(file)
    .split("\n")
    .filter((line) => line !== "");
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
