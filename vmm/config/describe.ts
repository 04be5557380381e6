// ResolvedConfig -> VmConfig: what a caller would have to ask for to get the same again, for a saved state.
// Paths are absolute, and the command line is whole.
import { resolve } from "node:path";
import type { ResolvedNet } from "./nets.js";
import type { ResolvedConfig, VmConfig } from "./types.js";

/** As plain data: fields that are undefined are left out. */
export function describeConfig(config: ResolvedConfig): VmConfig {
  const { kernel, initrd, disks, nets, vsock, ...rest } = config;
  const described: VmConfig = {
    ...rest,
    bareCmdline: true,
    kernel: resolve(kernel),
    initrd: initrd === undefined ? undefined : resolve(initrd),
    disks: disks.map((disk) => ({ ...disk, path: resolve(disk.path) })),
    nets: nets.map(describeNet),
    vsock: vsock === undefined ? undefined : { ...vsock, path: resolve(vsock.path) },
  };
  return JSON.parse(JSON.stringify(described)) as VmConfig;
}

function describeNet({ mac, hostAddress, ...net }: ResolvedNet): NonNullable<VmConfig["nets"]>[number] {
  return {
    ...net,
    mac: mac === undefined ? undefined : Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":"),
    hostAddress: hostAddress === undefined ? undefined : `${hostAddress.address}/${String(hostAddress.prefixLength)}`,
  };
}
