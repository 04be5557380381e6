// The public door: everything that a program may use, and nothing else.
import { buildVm } from "./builder.js";
import { resolveConfig } from "./config/resolve.js";
import type { VmConfig } from "./config/types.js";
import { deviceSupport } from "./device-support.js";
import { Vm, type VmHost } from "./vm.js";

/**
 * Builds a VM; `vm.start()` runs it, `vm.close()` frees it.
 * Throws ConfigError, DiskError, KernelImageError, HostError or KvmIoctlError, and leaves nothing behind then.
 */
export function createVm(config: VmConfig, host: VmHost): Vm {
  return new Vm(buildVm(resolveConfig(config), { deviceSupport }), host);
}

export {
  BusError,
  ConfigError,
  DiskError,
  ERROR_CODES,
  GuestMemoryError,
  HostError,
  KernelImageError,
  KvmIoctlError,
  LabError,
  VcpuExitError,
  VmmError,
  type ErrorCode,
} from "./errors.js";
export type { DiskCache, DiskConfig } from "./config/disks.js";
export type { BootProtocol, VmConfig } from "./config/types.js";
export type { StartOptions, VmHost } from "./vm.js";
export type { GuestOutcome, Milestones, VmExit, VmStatistics } from "./vm-exit.js";
export { Vm };
