// What is left of containers on this host, wherever a container can leave something: one line each.
import { existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { statFields } from "../../vmm/sdk/process-identity.js";

const PROGRAM_LIMIT_MS = 10_000;

export interface ContainerPlaces {
  /** In the command line of each process of theirs, and in the path of each mount. */
  readonly folder: string;
  /** Of the runtime's --root. */
  readonly root: string;
  /** The control group above theirs, below each hierarchy. */
  readonly cgroupParent: string;
  /** Their network namespaces, by names of `ip netns`. */
  readonly networks: readonly string[];
  /** Files of a folder for temporary files that were there before. */
  readonly temporary: readonly string[];
}

export function leftovers(places: ContainerPlaces): string[] {
  return [
    ...processes(places.folder),
    ...mounts(`${places.folder}/state/`),
    ...namesIn(places.root).map((name) => `state ${name}`),
    ...groups(places.cgroupParent),
    ...sockets(places.folder),
    ...places.networks.flatMap(network),
    ...temporaryFiles()
      .filter((name) => !places.temporary.includes(name))
      .map((name) => `temporary file ${name}`),
  ];
}

/** Guests boot on a busy host, too: all of them together have as much of it as many other programs. */
export function makeParentGroups(name: string): void {
  for (const hierarchy of hierarchies()) {
    mkdirSync(join(hierarchy, name), { recursive: true });
    const shares = join(hierarchy, name, "cpu.shares");
    if (existsSync(shares)) writeFileSync(shares, "30000");
  }
}

export function removeParentGroups(name: string): void {
  for (const hierarchy of hierarchies()) if (existsSync(join(hierarchy, name))) rmdirSync(join(hierarchy, name));
}

export function hierarchies(): string[] {
  const all = ["/sys/fs/cgroup", ...namesIn("/sys/fs/cgroup").map((name) => join("/sys/fs/cgroup", name))];
  // One that is there under two names, such as "cpu" and "cpu,cpuacct", counts twice.
  return all.filter((folder) => existsSync(join(folder, "cgroup.procs")) && !existsSync(join(folder, "cgroup.type")));
}

/** Those of vmlet, of Docker's networks and of the runtime's kind. */
export function temporaryFiles(): string[] {
  return namesIn("/tmp").filter((name) => /^vmlet-[A-Za-z0-9]{6}$/.test(name));
}

/** Living processes in whose command line the text is, but for this one and those above it. */
export function processes(text: string): string[] {
  const own = new Set<number>();
  for (let pid = process.pid; pid > 1; pid = Number(statFields(pid)?.[1] ?? 0)) own.add(pid);
  return namesIn("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name) || own.has(Number(name))) return [];
    const command = read(`/proc/${name}/cmdline`).replaceAll("\0", " ");
    const isGone = ["Z", "X", undefined].includes(statFields(Number(name))?.[0]);
    return command.includes(text) && !isGone ? [`process ${name}: ${command.slice(0, 200)}`] : [];
  });
}

/** In whatever namespace of a living process. */
export function mounts(folder: string): string[] {
  const seen = new Set<string>();
  return namesIn("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    let namespace: string;
    try {
      namespace = readlinkSync(`/proc/${name}/ns/mnt`);
    } catch {
      return [];
    }
    if (seen.has(namespace)) return [];
    seen.add(namespace);
    return read(`/proc/${name}/mountinfo`)
      .split("\n")
      .filter((line) => line.includes(folder))
      .map((line) => `mount in the namespace of process ${name}: ${line}`);
  });
}

function groups(parent: string): string[] {
  return hierarchies().flatMap((hierarchy) => {
    const folder = join(hierarchy, parent);
    if (!existsSync(folder)) return [];
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `control group ${join(folder, entry.name)}`);
  });
}

export function sockets(folder: string): string[] {
  return read("/proc/net/unix")
    .split("\n")
    .filter((line) => line.includes(folder))
    .map((line) => `socket ${line}`);
}

function network(name: string): string[] {
  const run = (...words: readonly string[]): string[] =>
    spawnSync(words[0] ?? "", words.slice(1), { encoding: "utf8", timeout: PROGRAM_LIMIT_MS })
      .stdout.split("\n")
      .filter((line) => line !== "");
  const taps = run("ip", "-n", name, "-o", "link").filter((line) => /\bvmlet\d/.test(line));
  const queues = run("tc", "-n", name, "qdisc").filter((line) => line.includes("ingress"));
  return [...taps.map((line) => `interface in ${name}: ${line}`), ...queues.map((line) => `queue in ${name}: ${line}`)];
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
