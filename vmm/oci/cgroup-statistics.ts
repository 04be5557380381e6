// What a container uses on the host: figures of its control groups, in the form of runc's `events --stats`. They are those of the VM
// as a whole.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CgroupPaths } from "./cgroups.js";

/** USER_HZ, in which cpuacct.stat counts: the same on every Linux for x86. */
const NS_PER_TICK = 10_000_000;
const NS_PER_US = 1000;

interface BlkioEntry {
  readonly major: number;
  readonly minor: number;
  readonly op: string;
  readonly value: number;
}

export function statistics(paths: CgroupPaths): object {
  const unified = paths[""];
  return {
    ...(unified === undefined ? ofV1(paths) : ofV2(unified)),
    hugetlb: {},
    intel_rdt: {},
    network_interfaces: null,
  };
}

/** Tasks that the kernel has killed for want of memory in these groups. */
export function oomKills(paths: CgroupPaths): number {
  const { "": unified, memory } = paths;
  if (unified !== undefined) return fields(unified, "memory.events")["oom_kill"] ?? 0;
  return memory === undefined ? 0 : (fields(memory, "memory.oom_control")["oom_kill"] ?? 0);
}

function ofV1({ cpu = "", cpuacct = "", memory = "", pids = "", blkio = "" }: CgroupPaths) {
  const { user = 0, system = 0 } = fields(cpuacct, "cpuacct.stat");
  const times = fields(cpu, "cpu.stat");
  const raw = fields(memory, "memory.stat");
  const usage = (kind: string) => ({
    limit: numberIn(memory, `memory.${kind}limit_in_bytes`),
    usage: numberIn(memory, `memory.${kind}usage_in_bytes`),
    max: numberIn(memory, `memory.${kind}max_usage_in_bytes`),
    failcnt: numberIn(memory, `memory.${kind}failcnt`),
  });
  return {
    cpu: {
      usage: {
        total: numberIn(cpuacct, "cpuacct.usage"),
        percpu: read(cpuacct, "cpuacct.usage_percpu").trim().split(" ").filter(Boolean).map(Number),
        kernel: system * NS_PER_TICK,
        user: user * NS_PER_TICK,
      },
      throttling: {
        periods: times["nr_periods"] ?? 0,
        throttledPeriods: times["nr_throttled"] ?? 0,
        throttledTime: times["throttled_time"] ?? 0,
      },
    },
    memory: { cache: raw["total_cache"] ?? 0, usage: usage(""), swap: usage("memsw."), kernel: usage("kmem."), raw },
    pids: tasks(pids),
    blkio: {
      ioServiceBytesRecursive: blkioEntries(blkio, "blkio.throttle.io_service_bytes_recursive"),
      ioServicedRecursive: blkioEntries(blkio, "blkio.throttle.io_serviced_recursive"),
    },
  };
}

function ofV2(folder: string) {
  const times = fields(folder, "cpu.stat");
  const us = (name: string): number => (times[name] ?? 0) * NS_PER_US;
  const raw = fields(folder, "memory.stat");
  const limits = fields(folder, "memory.events");
  return {
    cpu: {
      usage: { total: us("usage_usec"), kernel: us("system_usec"), user: us("user_usec") },
      throttling: {
        periods: times["nr_periods"] ?? 0,
        throttledPeriods: times["nr_throttled"] ?? 0,
        throttledTime: us("throttled_usec"),
      },
    },
    memory: {
      cache: raw["file"] ?? 0,
      usage: {
        limit: numberIn(folder, "memory.max"),
        usage: numberIn(folder, "memory.current"),
        max: numberIn(folder, "memory.peak"),
        failcnt: limits["max"] ?? 0,
      },
      swap: {
        limit: numberIn(folder, "memory.swap.max"),
        usage: numberIn(folder, "memory.swap.current"),
        max: 0,
        failcnt: 0,
      },
      raw,
    },
    pids: tasks(folder),
    blkio: {
      ioServiceBytesRecursive: ioEntries(folder, ["rbytes", "wbytes"]),
      ioServicedRecursive: ioEntries(folder, ["rios", "wios"]),
    },
  };
}

function tasks(folder: string) {
  const limit = numberIn(folder, "pids.max");
  return { current: numberIn(folder, "pids.current"), ...(limit > 0 ? { limit } : {}) };
}

/** Lines such as "254:0 Read 4096". */
function blkioEntries(folder: string, file: string): BlkioEntry[] {
  const found = read(folder, file).matchAll(/^(\d+):(\d+) (\w+) (\d+)$/gm);
  return Array.from(found, ([, major, minor, op = "", value]) => ({
    major: Number(major),
    minor: Number(minor),
    op,
    value: Number(value),
  }));
}

/** Lines such as "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0"; what is read comes first. */
function ioEntries(folder: string, [readName, writeName]: readonly [string, string]): BlkioEntry[] {
  return read(folder, "io.stat")
    .split("\n")
    .flatMap((line) => {
      const [, major, minor] = /^(\d+):(\d+) /.exec(line) ?? [];
      if (major === undefined) return [];
      const value = (name: string): number => Number(new RegExp(` ${name}=(\\d+)`).exec(line)?.[1] ?? 0);
      const device = { major: Number(major), minor: Number(minor) };
      return [
        { ...device, op: "Read", value: value(readName) },
        { ...device, op: "Write", value: value(writeName) },
      ];
    });
}

/** Lines of a name and a number. */
function fields(folder: string, file: string): Readonly<Record<string, number>> {
  const lines = read(folder, file).matchAll(/^(\w+) (\d+)$/gm);
  return Object.fromEntries(Array.from(lines, ([, name = "", value]) => [name, Number(value)]));
}

/** "max", and a file that is not there, count as 0. */
function numberIn(folder: string, file: string): number {
  return Number(read(folder, file).trim()) || 0;
}

function read(folder: string, file: string): string {
  if (folder === "") return "";
  try {
    return readFileSync(join(folder, file), "latin1");
  } catch {
    return "";
  }
}
