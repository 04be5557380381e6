// What a KVM leaves to its monitor; a KVM with hardware virtualization behind it leaves nothing.
import type { FixupName } from "./fixup.js";
import type { XsaveComponent } from "./xsave.js";

/** What the probe has found, as the threads of a VM need it. */
export interface Quirks {
  /** Instructions that end in an emulation failure in kernel code. */
  readonly missing: readonly FixupName[];
  /** SYSCALL does not change the privilege level. */
  readonly syscallStaysInUserMode: boolean;
  /** Rate of the guest's time-stamp counter, 0 if KVM does not tell: its kernel need not measure it. */
  readonly tscKhz: number;
  readonly xsaveComponents: readonly XsaveComponent[];
}
