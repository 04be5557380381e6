// VmConfig -> ResolvedConfig: every field checked, all problems reported at once, nothing of the host
// touched yet.
import { ConfigError } from "../errors.js";
import { BALLOON_SCHEMA, resolveBalloon } from "./balloon.js";
import { checkRecord } from "./check.js";
import {
  consoleParameter,
  DEFAULT_CMDLINE,
  DEFAULT_CPUS,
  DEFAULT_MEMORY_MIB,
  MAX_MEMORY_MIB,
  MAX_VIRTIO_DEVICES,
  NO_PCI_CMDLINE,
  QUIET_CMDLINE,
} from "./defaults.js";
import { deviceCount, interruptProblem } from "./devices.js";
import { CPUS_SCHEMA, machineProblems, MEMORY_SCHEMA } from "./machine.js";
import { DISKS_SCHEMA, resolveDisks, rootParameters } from "./disks.js";
import { MMDS_SCHEMA, resolveMmds } from "./mmds.js";
import { NETS_SCHEMA, resolveNets, withoutSharing } from "./nets.js";
import { RATE_LIMITER_SCHEMA } from "./rate-limiter.js";
import { PATH_SCHEMA } from "./schema.js";
import { resolveShares, SHARES_SCHEMA } from "./shares.js";
import type { ResolvedConfig, VmConfig } from "./types.js";
import { userNetParameters } from "./user-net.js";
import { resolveVfio, VFIO_SCHEMA } from "./vfio.js";
import { resolveVsock, VSOCK_SCHEMA } from "./vsock.js";

const MEMORY_TITLE = "Memory (memoryMib)";
const CPUS_TITLE = "Number of vCPUs (cpus)";

export const VM_SCHEMA = {
  type: "object",
  title: "The configuration",
  properties: {
    kernel: PATH_SCHEMA,
    initrd: PATH_SCHEMA,
    cmdline: { type: "string", pattern: "^[^\\0]*$", "x-expected": "a command line, text without a NUL character" },
    bareCmdline: { type: "boolean" },
    memoryMib: { ...MEMORY_SCHEMA, title: MEMORY_TITLE },
    cpus: { ...CPUS_SCHEMA, title: CPUS_TITLE },
    smt: { type: "boolean" },
    hugePages: { enum: ["none", "transparent", "2M"] },
    nested: { type: "boolean" },
    pci: { type: "boolean" },
    cpuTemplate: {
      type: "string",
      title: "CPU template (cpuTemplate)",
      pattern: "^[^\\0]+$",
      "x-expected": "the name of a template, or a path",
    },
    protocol: { enum: ["auto", "linux64", "pvh"], title: "Boot protocol (protocol)" },
    quiet: { type: "boolean" },
    disks: DISKS_SCHEMA,
    nets: NETS_SCHEMA,
    mmds: MMDS_SCHEMA,
    vsock: VSOCK_SCHEMA,
    console: { enum: ["serial", "virtio"] },
    rng: { type: "boolean" },
    rngRateLimiter: RATE_LIMITER_SCHEMA,
    balloon: BALLOON_SCHEMA,
    shares: SHARES_SCHEMA,
    vfio: VFIO_SCHEMA,
    keyboard: { type: "boolean" },
    commandChannel: { type: "boolean" },
  },
  required: ["kernel"],
  additionalProperties: false,
} as const;

/** Throws ConfigError with one line a problem. */
export function resolveConfig(given: VmConfig): ResolvedConfig {
  const problems: string[] = [];
  const config = checkRecord(VM_SCHEMA, given, problems) ?? {};
  const { kernel = "", initrd, protocol = "auto", console = "serial" } = config;
  const { memoryMib = DEFAULT_MEMORY_MIB, cpus = DEFAULT_CPUS, smt = false, hugePages = "none" } = config;
  const isMemoryWrong = problems.some((problem) => problem.startsWith(MEMORY_TITLE));
  const vfio = resolveVfio(config.vfio ?? [], config.balloon !== undefined, problems);
  const pci = config.pci === true || vfio.length > 0;
  const nets = resolveNets(config.nets ?? [], problems);
  const devices = {
    disks: resolveDisks(config.disks ?? [], problems),
    nets,
    mmds: resolveMmds(config.mmds, nets),
    vsock: resolveVsock(config.vsock),
    console,
    rng: config.rng ?? config.rngRateLimiter !== undefined,
    rngRateLimiter: config.rngRateLimiter,
    // A limit derived from a wrong memory size would be a second problem with the same value.
    balloon: resolveBalloon(config.balloon, isMemoryWrong ? MAX_MEMORY_MIB : memoryMib, problems),
    shares: resolveShares(config.shares ?? [], problems),
  };
  if (config.rngRateLimiter !== undefined && !devices.rng) {
    problems.push("rngRateLimiter is for an entropy device, and rng is false");
  }
  const count = deviceCount(devices);
  if (count > MAX_VIRTIO_DEVICES) {
    problems.push(`Number of devices ${String(count)} is more than ${String(MAX_VIRTIO_DEVICES)}`);
  }
  // On a PCI bus none of them needs a line.
  const interrupts = pci ? undefined : interruptProblem(count, config.cmdline ?? "");
  if (interrupts !== undefined) problems.push(interrupts);
  const machine = { cpus, smt, memoryMib, hugePages };
  problems.push(...machineProblems(machine, { cpus: CPUS_TITLE, memoryMib: MEMORY_TITLE }));
  if (hugePages !== "none") {
    if (devices.shares.length > 0) {
      problems.push(`Folders can be shared only with memory of ordinary pages (hugePages ${hugePages})`);
    }
    if (nets.some(({ user, vhost }) => user !== undefined && vhost === "on")) {
      problems.push(`A network in user mode has vhost only with memory of ordinary pages (hugePages ${hugePages})`);
    }
    devices.nets = withoutSharing(nets);
  }
  if (problems.length > 0) throw new ConfigError(problems);

  const parts = config.bareCmdline === true ? [] : [consoleParameter(console), DEFAULT_CMDLINE];
  if (config.bareCmdline !== true && !pci) parts.push(NO_PCI_CMDLINE);
  // Before the caller's own words, of which the last `root=` and `ip=` count.
  parts.push(...rootParameters(devices.disks));
  parts.push(...userNetParameters(devices.nets));
  if (config.quiet === true) parts.push(QUIET_CMDLINE);
  if (config.cmdline !== undefined && config.cmdline !== "") parts.push(config.cmdline);
  return {
    kernel,
    initrd,
    cmdline: parts.join(" "),
    memoryMib,
    cpus,
    smt,
    hugePages,
    nested: config.nested ?? false,
    pci,
    cpuTemplate: config.cpuTemplate,
    protocol,
    ...devices,
    vfio,
    keyboard: config.keyboard ?? false,
    commandChannel: config.commandChannel ?? false,
  };
}
