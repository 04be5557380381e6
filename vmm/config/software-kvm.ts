// The words for a guest kernel on a KVM that emulates kernel code. CPUID cannot refuse a feature
// there (the guest sees the processor's own leaves 1 and 7), the command line can.

/** x86 feature bits by number, as `clearcpuid=` takes them. Linux, arch/x86/include/asm/cpufeatures.h. */
const X86_FEATURES = {
  CX16: 141,
  POPCNT: 151,
  ERMS: 297,
  SMAP: 308,
  XSAVEOPT: 320,
  XSAVEC: 321,
  XGETBV1: 322,
  XSAVES: 323,
  FSRM: 580,
} as const;

/**
 * Words in front of the rest of the command line.
 * - CX16, POPCNT, SMAP: each use would be a fix-up, which is an exit
 * - ERMS, FSRM: string instructions cost the same per step, and bytes are eight times as many steps as words
 * - XSAVEOPT, XSAVEC, XGETBV1, XSAVES: only the standard format is done by hand
 * - `nofsgsbase`: with it, the entry of some exceptions uses LSL, which is not emulated
 * - `rodata=off`: no rewriting of the page tables at the end of the boot
 * - `noreplace-smp`: no patching of every LOCK prefix, each through a page table of its own
 * - `clocksource=kvm-clock`: what a guest reads of the processor's counter is the host's, which goes on while the guest
 *   is a file; this clock goes on where it was. It costs a boot some of its speed: only for a guest that may be saved
 * - `no-kvmapf`: KVM would interrupt each restored guest to wake up whoever waits for a page, and nobody does
 * - `tsc_early_khz`: the guest need not measure it against a slow timer; left out if `tscKhz` is 0
 */
export function softwareKvmCmdline(tscKhz: number, { mayBeSaved = false } = {}): string {
  const clock = mayBeSaved ? " clocksource=kvm-clock no-kvmapf" : "";
  const words = `${clearCpuid()} nofsgsbase rodata=off noreplace-smp${clock}`;
  return tscKhz > 0 ? `${words} tsc_early_khz=${String(tscKhz)}` : words;
}

/** The word that refuses these features, and `more`. */
export function clearCpuid(...more: readonly number[]): string {
  return `clearcpuid=${[...Object.values(X86_FEATURES), ...more].join(",")}`;
}
