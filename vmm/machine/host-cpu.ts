// What this host's processor and KVM can show a guest and keep for it.
import type { KvmSystem } from "../kvm/system.js";
import { xsaveBytes } from "../kvm/vcpu-state.js";
import { cpuidOf } from "../sys/cpuid.js";
import { KVM_CAP_TSC_CONTROL, KVM_CAP_TSC_DEADLINE_TIMER } from "../sys/kvm-abi.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import { FEATURE_REGISTERS, IA32_ARCH_CAPABILITIES } from "../x86/cpu-features.js";

export interface HostCpu {
  /** KVM_GET_SUPPORTED_CPUID. */
  readonly supported: readonly CpuidEntry[];
  readonly tscDeadline: boolean;
  /** A guest's time-stamp counter may run at another rate than the processor's. */
  readonly canScaleTsc: boolean;
  /** `bytes` of the state that XSAVE has at most. */
  readonly xsaveBytes: number;
  /** MSRs that KVM knows. */
  readonly msrs: ReadonlySet<number>;
  /** IA32_ARCH_CAPABILITIES as a guest may see it, 0 if KVM does not tell. */
  readonly archCapabilities: bigint;
}

let known: HostCpu | undefined;

/** Asked once in a process: it stays as it is, and KVM has to execute CPUID for it, which is slow on a virtual host. */
export function hostCpu(system: KvmSystem): HostCpu {
  known ??= {
    supported: system.supportedCpuid(),
    tscDeadline: system.checkExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0,
    canScaleTsc: system.checkExtension(KVM_CAP_TSC_CONTROL) > 0,
    xsaveBytes: xsaveBytes(system),
    msrs: new Set(system.msrIndices()),
    archCapabilities: system.featureMsr(IA32_ARCH_CAPABILITIES) ?? 0n,
  };
  return known;
}

/** Rate of the time-stamp counter of a new guest, `kHz`; 0 if this host does not tell. */
export function hostTscKhz(system: KvmSystem): number {
  const vm = system.createVm();
  try {
    const vcpu = vm.createVcpu(0, system.vcpuMmapSize());
    try {
      return vcpu.tscKhz();
    } finally {
      vcpu.close();
    }
  } finally {
    vm.close();
  }
}

let native: readonly CpuidEntry[] | undefined;

/**
 * The processor's own CPUID, as far as it says what it can do: what guests of a KVM without hardware virtualization see.
 * Empty where a process may not have code of its own.
 */
export function nativeCpuid(): readonly CpuidEntry[] {
  if (native !== undefined) return native;
  const leaves = new Map<string, readonly [number, number]>([["0 0", [0, 0]]]);
  for (const { leaf, index } of FEATURE_REGISTERS) {
    if (!isHypervisorLeaf(leaf)) leaves.set(`${String(leaf)} ${String(index)}`, [leaf, index]);
  }
  try {
    const asked = [...leaves.values()];
    const maximum = cpuidOf([
      [0, 0],
      [0x8000_0000, 0],
    ]).map(({ eax }) => eax);
    const [basic = 0, extended = 0] = maximum;
    const there = asked.filter(([leaf]) => leaf <= (leaf >= 0x8000_0000 ? extended : basic));
    native = cpuidOf(there).map((registers, i) => {
      const [leaf = 0, index = 0] = there[i] ?? [];
      return { function: leaf, index, flags: 0, ...registers };
    });
  } catch {
    native = [];
  }
  return native;
}

function isHypervisorLeaf(leaf: number): boolean {
  return leaf >= 0x4000_0000 && leaf < 0x8000_0000;
}
