// Whether a snapshot's guest could go on on this host, without it being tried.
import { join } from "node:path";
import { resolveDescribed } from "../config/describe.js";
import type { VmConfig } from "../config/types.js";
import { HostError } from "../errors.js";
import { bootId } from "../host/facts.js";
import { knownQuirks } from "../fixups/probe.js";
import { KvmSystem } from "../kvm/system.js";
import { vcpuFromData } from "../kvm/vcpu-data.js";
import { hostCpu, hostTscKhz, nativeCpuid } from "../machine/host-cpu.js";
import { cpuProblems, type ThisHost } from "./cpu-check.js";
import { STATE_FILE } from "./folder.js";
import { readState } from "./state-parts.js";
import { readHost } from "./saved-host.js";
import { readingState } from "./state-file.js";

/** What of the processor does not fit, a sentence each; undefined without a /dev/kvm. Throws SnapshotError. */
export function problemsHere(folder: string): string[] | undefined {
  const here = thisHost();
  if (here === undefined) return undefined;
  const state = readState(folder);
  return readingState(join(folder, STATE_FILE), () => {
    const { cpus } = resolveDescribed(state.at("config").value as VmConfig);
    const vcpus = state.list("vcpus", cpus).map(vcpuFromData);
    return cpuProblems({ vcpus, host: readHost(state.at("host")) }, here);
  });
}

function thisHost(): ThisHost | undefined {
  let system: KvmSystem;
  try {
    system = KvmSystem.open();
  } catch (error) {
    if (error instanceof HostError) return undefined;
    throw error;
  }
  try {
    const software = knownQuirks(system) !== undefined;
    return { cpu: hostCpu(system), software, native: nativeCpuid, boot: bootId, tscKhz: hostTscKhz(system) };
  } finally {
    system.close();
  }
}
