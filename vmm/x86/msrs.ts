// MSRs that a firmware would have set before the kernel's entry. Intel SDM vol. 4.

const IA32_MISC_ENABLE = 0x1a0;
const MSR_MTRRdefType = 0x2ff;

/** REP MOVS and STOS may work on whole cache lines. */
const MISC_ENABLE_FAST_STRING = 1n << 0n;
const MTRR_ENABLE = 1n << 11n;
const MTRR_TYPE_WRITE_BACK = 6n;

/** [index, value] for KVM_SET_MSRS, on every vCPU. */
export const BOOT_MSRS: readonly (readonly [index: number, value: bigint])[] = [
  [IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING],
  // Without a default type of write-back, Linux takes all of RAM for uncached and drops it.
  [MSR_MTRRdefType, MTRR_ENABLE | MTRR_TYPE_WRITE_BACK],
];
