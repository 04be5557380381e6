// ResolvedConfig -> VmConfig: what a caller would have to ask for to get the same again, for a saved state.
// Paths are absolute, and the command line is whole.
import { resolve } from "node:path";
import { CPU_TEMPLATE_NAMES, type CpuTemplateName } from "./defaults.js";
import { ConfigError } from "../errors.js";
import { resolveConfig } from "./resolve.js";
import type { ResolvedNet } from "./nets.js";
import type { ResolvedShare } from "./shares.js";
import type { ResolvedConfig, VmConfig } from "./types.js";

/** As plain data: fields that are undefined are left out. */
export function describeConfig(config: ResolvedConfig): VmConfig {
  const { kernel, initrd, disks, nets, vsock, cpuTemplate, shares, vfio, ...rest } = config;
  const described: VmConfig = {
    ...rest,
    bareCmdline: true,
    cpuTemplate: isTemplateName(cpuTemplate) ? cpuTemplate : resolve(cpuTemplate),
    kernel: resolve(kernel),
    initrd: initrd === undefined ? undefined : resolve(initrd),
    disks: disks.map((disk) => ({ ...disk, path: resolve(disk.path) })),
    nets: nets.map(describeNet),
    vsock: vsock?.path === undefined ? vsock : { ...vsock, path: resolve(vsock.path) },
    shares: shares.length === 0 ? undefined : shares.map(describeShare),
    vfio: vfio.length === 0 ? undefined : vfio.map((device) => ({ device })),
  };
  return JSON.parse(JSON.stringify(described)) as VmConfig;
}

function describeShare({ path, tag, isReadonly }: ResolvedShare): NonNullable<VmConfig["shares"]>[number] {
  return { path: resolve(path), tag, isReadonly };
}

function isTemplateName(cpuTemplate: string | undefined): cpuTemplate is CpuTemplateName | undefined {
  return cpuTemplate === undefined || CPU_TEMPLATE_NAMES.some((name) => name === cpuTemplate);
}

/** What was described, again. Throws ConfigError for what cannot be. */
export function resolveDescribed(described: VmConfig): ResolvedConfig {
  const config = resolveConfig(described);
  // Nobody has saved such a guest; and no file has a say in which devices of this host are given away.
  if (config.vfio.length > 0) throw new ConfigError(["A saved guest has no assigned devices (vfio)"]);
  // It is whole: what the devices add to one is in it already.
  return { ...config, cmdline: described.cmdline ?? "" };
}

function describeNet({ mac, hostAddress, ...net }: ResolvedNet): NonNullable<VmConfig["nets"]>[number] {
  return {
    ...net,
    mac: mac === undefined ? undefined : Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":"),
    hostAddress: hostAddress === undefined ? undefined : `${hostAddress.address}/${String(hostAddress.prefixLength)}`,
  };
}
