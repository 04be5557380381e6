// VmConfig -> ResolvedConfig: unknown keys refused, all problems reported at once,
// nothing of the host touched yet.
import { ConfigError } from "../errors.js";
import { resolveBalloon } from "./balloon.js";
import { integerProblem } from "./checks.js";
import {
  consoleParameter,
  DEFAULT_CMDLINE,
  DEFAULT_CPUS,
  DEFAULT_MEMORY_MIB,
  MAX_CPUS,
  MAX_MEMORY_MIB,
  MAX_VIRTIO_DEVICES,
  MIN_MEMORY_MIB,
  QUIET_CMDLINE,
} from "./defaults.js";
import { deviceCount } from "./devices.js";
import { resolveDisks, rootParameters } from "./disks.js";
import { resolveNets } from "./nets.js";
import type { ConsoleKind, ResolvedConfig, VmConfig } from "./types.js";
import { userNetParameters } from "./user-net.js";
import { resolveVsock } from "./vsock.js";

const KEYS: readonly (keyof VmConfig)[] = [
  "kernel",
  "initrd",
  "cmdline",
  "bareCmdline",
  "memoryMib",
  "cpus",
  "nested",
  "protocol",
  "quiet",
  "disks",
  "nets",
  "vsock",
  "console",
  "rng",
  "balloon",
];
const CONSOLES: readonly ConsoleKind[] = ["serial", "virtio"];

/** Throws ConfigError with one line a problem. */
export function resolveConfig(config: VmConfig): ResolvedConfig {
  const problems: string[] = [];
  for (const key of Object.keys(config)) {
    if (!(KEYS as readonly string[]).includes(key)) {
      problems.push(`Unknown option ${JSON.stringify(key)}; known are ${KEYS.join(", ")}`);
    }
  }
  const memoryMib = config.memoryMib ?? DEFAULT_MEMORY_MIB;
  const cpus = config.cpus ?? DEFAULT_CPUS;
  const protocol = config.protocol ?? "auto";
  if (typeof config.kernel !== "string" || config.kernel === "") problems.push("No kernel is given");
  for (const problem of [
    integerProblem("Memory of", memoryMib, MIN_MEMORY_MIB, MAX_MEMORY_MIB, " MiB"),
    integerProblem("Number of vCPUs", cpus, 1, MAX_CPUS, ""),
  ]) {
    if (problem !== undefined) problems.push(problem);
  }
  if (!["auto", "linux64", "pvh"].includes(protocol)) {
    problems.push(`Boot protocol ${JSON.stringify(protocol)} is not one of auto, linux64, pvh`);
  }
  const console = config.console ?? "serial";
  if (!CONSOLES.includes(console)) {
    problems.push(`Console ${JSON.stringify(console)} is not one of ${CONSOLES.join(", ")}`);
  }
  const devices = {
    disks: resolveDisks(config.disks ?? [], problems),
    nets: resolveNets(config.nets ?? [], problems),
    vsock: resolveVsock(config.vsock, problems),
    console,
    rng: config.rng ?? false,
    balloon: resolveBalloon(config.balloon, memoryMib, problems),
  };
  const count = deviceCount(devices);
  if (count > MAX_VIRTIO_DEVICES) {
    problems.push(`Number of devices ${String(count)} is more than ${String(MAX_VIRTIO_DEVICES)}`);
  }
  if (problems.length > 0) throw new ConfigError(problems);

  const parts = config.bareCmdline === true ? [] : [consoleParameter(console), DEFAULT_CMDLINE];
  // Before the caller's own words, of which the last `root=` and `ip=` count.
  parts.push(...rootParameters(devices.disks));
  parts.push(...userNetParameters(devices.nets));
  if (config.quiet === true) parts.push(QUIET_CMDLINE);
  if (config.cmdline !== undefined && config.cmdline !== "") parts.push(config.cmdline);
  return {
    kernel: config.kernel,
    initrd: config.initrd,
    cmdline: parts.join(" "),
    memoryMib,
    cpus,
    nested: config.nested ?? false,
    protocol,
    ...devices,
  };
}
