// MSRs that a firmware would have set before the kernel's entry. Intel SDM vol. 4.

import { hasVmx, type CpuidEntry } from "./cpuid.js";

const IA32_FEATURE_CONTROL = 0x3a;
const IA32_MISC_ENABLE = 0x1a0;
const MSR_MTRRdefType = 0x2ff;

const FEATURE_CONTROL_LOCK = 1n << 0n;
const FEATURE_CONTROL_VMX_OUTSIDE_SMX = 1n << 2n;
/** REP MOVS and STOS may work on whole cache lines. */
const MISC_ENABLE_FAST_STRING = 1n << 0n;
const MTRR_ENABLE = 1n << 11n;
const MTRR_TYPE_WRITE_BACK = 6n;

type Msr = readonly [index: number, value: bigint];

const ALWAYS: readonly Msr[] = [
  [IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING],
  // Without a default type of write-back, Linux takes all of RAM for uncached and drops it.
  [MSR_MTRRdefType, MTRR_ENABLE | MTRR_TYPE_WRITE_BACK],
];

/** [index, value] for KVM_SET_MSRS, on every vCPU, after its CPUID: KVM knows the first only with vmx. */
export function bootMsrs(cpuid: readonly CpuidEntry[]): readonly Msr[] {
  // Unless it is allowed here and locked, Linux takes VMX for switched off in the firmware.
  const vmx: readonly Msr[] = [[IA32_FEATURE_CONTROL, FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_OUTSIDE_SMX]];
  return hasVmx(cpuid) ? [...vmx, ...ALWAYS] : ALWAYS;
}
