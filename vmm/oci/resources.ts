// `update` and `events`: limits of a container that runs, and what it uses.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../errors.js";
import { print } from "../host/say.js";
import { processesIn, setLimits, type CgroupPaths } from "./cgroups.js";
import { onlyWord, parseOptions, type Options } from "./command-line.js";
import type { Context } from "./context.js";
import { checkedResources, readJson } from "./read-config.js";
import type { OciResources } from "./runtime-spec.js";
import { containerOf, type Container } from "./state.js";

const MIB = 1024 * 1024;
const STDIN = 0;
const UNIT: Readonly<Record<string, number>> = { "": 1, b: 1, k: 1024, m: MIB, g: 1024 * MIB };
const VALUES = [
  ...["resources|r", "blkio-weight", "cpu-period", "cpu-quota", "cpu-share", "cpu-rt-period", "cpu-rt-runtime"],
  ...["cpuset-cpus", "cpuset-mems", "kernel-memory", "kernel-memory-tcp", "memory", "memory-reservation"],
  ...["memory-swap", "pids-limit", "l3-cache-schema", "mem-bw-schema", "cpu-idle"],
];

export function update({ global, log, argv }: Context): number {
  const { options, words } = parseOptions(argv, { values: VALUES });
  const container = containerOf(global.root, onlyWord(words, "update"));
  const record = container.known;
  if (container.status === "stopped") throw new ConfigError(["container not running"]);
  const file = options.value("resources");
  const resources = file === undefined ? resourcesOf(options) : fromFile(file);
  const memory = resources.memory?.limit ?? 0;
  if (memory > 0 && Math.floor(memory / MIB) !== record.memoryMib && memory !== limitAtCreate(container)) {
    throw new ConfigError([
      `memory limit ${String(memory)}: the VM has ${String(record.memoryMib)} MiB for as long as it runs; stop the container, then change it`,
    ]);
  }
  if (options.value("kernel-memory") !== undefined) {
    log.warn("kernel-memory is not applied: what it counts is the VM's own");
  }
  setLimits(record.cgroups, resources, 0);
  return 0;
}

/** Engines send it again with whatever else changes. */
function limitAtCreate(container: Container): number | undefined {
  return container.config.linux?.resources?.memory?.limit;
}

/** Throws ConfigError. */
function fromFile(path: string): OciResources {
  const resources = path === "-" ? (JSON.parse(readFileSync(STDIN, "utf8")) as unknown) : readJson(path);
  checkedResources(resources, "resources");
  return resources as OciResources;
}

function resourcesOf(options: Options): OciResources {
  const number = (name: string): number | undefined => {
    const value = options.value(name);
    if (value === undefined || value === "") return undefined;
    const [, digits = "", unit = ""] = /^(-?\d+)([bkmg]?)b?$/i.exec(value) ?? [];
    if (digits === "") throw new ConfigError([`invalid value for --${name}: ${JSON.stringify(value)} is no number`]);
    return Number(digits) * (UNIT[unit.toLowerCase()] ?? 1);
  };
  const defined = <Fields extends object>(fields: Fields): Fields =>
    Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Fields;
  const resources = {
    memory: defined({
      limit: number("memory"),
      reservation: number("memory-reservation"),
      swap: number("memory-swap"),
    }),
    cpu: defined({
      shares: number("cpu-share"),
      quota: number("cpu-quota"),
      period: number("cpu-period"),
      cpus: options.value("cpuset-cpus"),
      mems: options.value("cpuset-mems"),
    }),
    pids: defined({ limit: number("pids-limit") }),
    blockIO: defined({ weight: number("blkio-weight") }),
  };
  checkedResources(resources, "update");
  return resources;
}

export async function events({ global, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, { values: ["interval"], flags: ["stats"] });
  const container = containerOf(global.root, onlyWord(words, "events"));
  const intervalMs = durationMs(options.value("interval") ?? "5s");
  const record = container.known;
  if (container.status === "stopped") throw new ConfigError([`container with id ${container.id} is not running`]);
  for (;;) {
    print(`${JSON.stringify({ type: "stats", id: container.id, data: statistics(record.cgroups) })}\n`);
    if (options.has("stats")) return 0;
    await sleep(intervalMs);
    if (!isRunning(container)) return 0;
  }
}

function isRunning(container: Container): boolean {
  return container.exists && container.status !== "stopped";
}

function durationMs(text: string): number {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit] ?? 0;
  if (factor === 0 || Number(digits) === 0)
    throw new ConfigError([`duration interval must be greater than 0: ${text}`]);
  return Number(digits) * factor;
}

/** As runc writes it, of what there is. */
function statistics(paths: CgroupPaths) {
  const read = (controller: string, file: string): number => {
    const folder = paths[controller];
    return folder === undefined ? 0 : numberIn(join(folder, file));
  };
  const unified = paths[""] !== undefined;
  const cpuTotal = unified
    ? field(join(paths[""] ?? "", "cpu.stat"), "usage_usec") * 1000
    : read("cpuacct", "cpuacct.usage");
  const memory = unified
    ? { usage: read("", "memory.current"), limit: read("", "memory.max"), max: read("", "memory.peak") }
    : {
        usage: read("memory", "memory.usage_in_bytes"),
        limit: read("memory", "memory.limit_in_bytes"),
        max: read("memory", "memory.max_usage_in_bytes"),
      };
  return {
    cpu: { usage: { total: cpuTotal, kernel: 0, user: 0 }, throttling: {} },
    memory: { usage: { limit: memory.limit, usage: memory.usage, max: memory.max, failcnt: 0 } },
    pids: { current: processesIn(paths).length },
    blkio: {},
    hugetlb: {},
    intel_rdt: {},
    network_interfaces: null,
  };
}

function numberIn(file: string): number {
  try {
    return Number(readFileSync(file, "latin1").trim()) || 0;
  } catch {
    return 0;
  }
}

function field(file: string, name: string): number {
  try {
    return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(readFileSync(file, "latin1"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
