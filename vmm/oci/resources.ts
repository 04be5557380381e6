// `update` and `events`: limits of a container that runs, and what it uses.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import { print } from "../host/say.js";
import { setLimits } from "./cgroup-limits.js";
import { oomKills, statistics } from "./cgroup-statistics.js";
import { onlyWord, parseOptions, type Options } from "./command-line.js";
import type { Context } from "./context.js";
import { TASK_LIMIT_IN_GUEST } from "./guest-group.js";
import { checkedResources, readJson } from "./read-config.js";
import type { OciResources } from "./runtime-spec.js";
import { AGENT_SOCKET, containerOf, type Container } from "./state.js";

const MIB = 1024 * 1024;
const STDIN = 0;
/** Between two looks whether the kernel has killed for want of memory, `ms`. */
const OOM_LOOK_MS = 250;
const UNIT: Readonly<Record<string, number>> = { "": 1, b: 1, k: 1024, m: MIB, g: 1024 * MIB };
const VALUES = [
  ...["resources|r", "blkio-weight", "cpu-period", "cpu-quota", "cpu-share", "cpu-rt-period", "cpu-rt-runtime"],
  ...["cpuset-cpus", "cpuset-mems", "kernel-memory", "kernel-memory-tcp", "memory", "memory-reservation"],
  ...["memory-swap", "pids-limit", "l3-cache-schema", "mem-bw-schema", "cpu-idle"],
];

const REFUSED = {
  "kernel-memory": "what it counts is the VM's own",
  "kernel-memory-tcp": "what it counts is the VM's own",
  "cpu-rt-period": "a VM's processors have no real-time limit",
  "cpu-rt-runtime": "a VM's processors have no real-time limit",
  "l3-cache-schema": "Intel RDT is not applied to VMs",
  "mem-bw-schema": "Intel RDT is not applied to VMs",
};

export async function update({ global, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, { values: VALUES });
  const container = containerOf(global.root, onlyWord(words, "update"));
  const record = container.known;
  if (container.status === "stopped") throw new ConfigError(["container not running"]);
  const file = options.value("resources");
  const resources = file === undefined ? resourcesOf(options) : fromFile(file);
  if (record.role.kind === "container") {
    throw new ConfigError(["a container of a pod has the limits in its VM with which it was created"]);
  }
  const memory = resources.memory?.limit ?? 0;
  if (memory > 0 && Math.floor(memory / MIB) !== record.memoryMib && memory !== limitAtCreate(container)) {
    throw new ConfigError([
      `memory limit ${String(memory)}: the VM has ${String(record.memoryMib)} MiB for as long as it runs; stop the container, then change it`,
    ]);
  }
  for (const [name, why] of Object.entries(REFUSED)) {
    const value = options.value(name);
    if (value !== undefined && value !== "" && value !== "0") throw new ConfigError([`--${name} ${value}: ${why}`]);
  }
  await limitTasks(container, resources.pids?.limit ?? 0);
  setLimits(record.cgroups, resources, 0);
  return 0;
}

/** In the guest, which counts them. Rejects with ConfigError for a container that has been started without a limit. */
async function limitTasks(container: Container, limit: number): Promise<void> {
  const first = container.config.linux?.resources?.pids?.limit ?? 0;
  if (limit === 0 || (limit < 0 && first <= 0)) return;
  if (first <= 0) {
    throw new ConfigError([
      `tasks limit ${String(limit)}: the container has been started without one, and so its guest does not count them; stop the container, then change it`,
    ]);
  }
  if (container.status === "created") {
    if (limit === first) return;
    throw new ConfigError([`tasks limit ${String(limit)}: the container has not been started`]);
  }
  const { Agent } = await import("../agent/agent.js");
  const { connectAgent } = await import("../sdk/agent-socket.js");
  const agent = await connectAgent(container.shortPath(AGENT_SOCKET));
  try {
    await new Agent(agent).files.write(TASK_LIMIT_IN_GUEST, limit < 0 ? "max" : String(limit));
  } finally {
    agent.close();
  }
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
    if (digits === "") throw new ConfigError([`invalid value for --${name}: ${show(value)} is no number`]);
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
      idle: number("cpu-idle"),
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
  const say = (type: string, data?: object): void => {
    print(`${JSON.stringify({ type, id: container.id, ...(data === undefined ? {} : { data }) })}\n`);
  };
  let kills = oomKills(record.cgroups);
  for (;;) {
    say("stats", statistics(record.cgroups));
    if (options.has("stats")) return 0;
    for (const begun = performance.now(); performance.now() - begun < intervalMs;) {
      await sleep(Math.min(OOM_LOOK_MS, intervalMs));
      const now = oomKills(record.cgroups);
      if (now > kills) say("oom");
      kills = now;
      if (!isRunning(container)) return 0;
    }
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
