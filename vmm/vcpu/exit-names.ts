// KVM exit reasons by number: the UAPI name, and the key used in reports.
// Source: <linux/kvm.h>, KVM_EXIT_*.

const NAMES = [
  "UNKNOWN",
  "EXCEPTION",
  "IO",
  "HYPERCALL",
  "DEBUG",
  "HLT",
  "MMIO",
  "IRQ_WINDOW_OPEN",
  "SHUTDOWN",
  "FAIL_ENTRY",
  "INTR",
  "SET_TPR",
  "TPR_ACCESS",
  "S390_SIEIC",
  "S390_RESET",
  "DCR",
  "NMI",
  "INTERNAL_ERROR",
  "OSI",
  "PAPR_HCALL",
  "S390_UCONTROL",
  "WATCHDOG",
  "S390_TSCH",
  "EPR",
  "SYSTEM_EVENT",
  "S390_STSI",
  "IOAPIC_EOI",
  "HYPERV",
  "ARM_NISV",
  "X86_RDMSR",
  "X86_WRMSR",
  "DIRTY_RING_FULL",
  "AP_RESET_HOLD",
  "X86_BUS_LOCK",
  "XEN",
] as const;

/** "KVM_EXIT_IO", or "KVM_EXIT_(77)" for a reason that this table does not know. */
export function exitName(reason: number): string {
  return `KVM_EXIT_${NAMES[reason] ?? `(${String(reason)})`}`;
}

/** "io": the lower-case name that reports use as a key. */
export function exitKey(reason: number): string {
  return (NAMES[reason] ?? `reason_${String(reason)}`).toLowerCase();
}
