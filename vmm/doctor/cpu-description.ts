// What this host's processor and KVM can show a guest, as data: what CPU templates of several hosts are made from.
import { probeQuirks } from "../fixups/probe.js";
import { KvmSystem } from "../kvm/system.js";
import { hostCpu, hostTscKhz } from "../machine/host-cpu.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import { processorModel, type ProcessorModel } from "../x86/cpu-features.js";

export interface CpuDescription extends ProcessorModel {
  /** Guests see the processor itself, because KVM has no hardware virtualization behind it. */
  readonly software: boolean;
  /** 0 if the host does not tell. */
  readonly tsc_khz: number;
  readonly tsc_scaling: boolean;
  /** IA32_ARCH_CAPABILITIES, in hexadecimal text. */
  readonly arch_capabilities: string;
  /** KVM_GET_SUPPORTED_CPUID. */
  readonly cpuid: readonly CpuidEntry[];
}

/** Null where there is no KVM that can be asked. */
export function describeCpu(): CpuDescription | null {
  let system: KvmSystem;
  try {
    system = KvmSystem.open();
  } catch {
    return null;
  }
  try {
    const cpu = hostCpu(system);
    return {
      ...processorModel(cpu.supported),
      software: probeQuirks(system) !== undefined,
      tsc_khz: hostTscKhz(system),
      tsc_scaling: cpu.canScaleTsc,
      arch_capabilities: `0x${cpu.archCapabilities.toString(16)}`,
      cpuid: cpu.supported,
    };
  } catch {
    return null;
  } finally {
    system.close();
  }
}
