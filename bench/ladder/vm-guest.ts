// What every VM rung boots: the same kernel, initramfs and command line, but for the word that tells
// how the guest ends its monitor.
import { join } from "node:path";
import { packageRoot } from "../../vmm/host/guest-files.js";
import { NO_PCI_CMDLINE, OWN_KERNEL_CMDLINE, QUIET_CMDLINE } from "../../vmm/config/defaults.js";
import { labInWords } from "../stamp.js";
import { acceleratorKind, hasHardwareVirtualization, isInLab } from "../../vmm/host/facts.js";

export function vmKernel(): string {
  return join(packageRoot(), "guest/out/default/vmlinux");
}

/** How the guest ends its monitor: without ACPI, this kernel can only switch vmlet's machines off. */
type Ending =
  /** A reboot through the i8042. */
  | "k"
  /** A reboot through a triple fault, where there is no i8042. */
  | "t"
  /** Cloud Hypervisor's own port: a reboot would start its guest again. */
  | "switch-off";

export function vmCmdline([file = "", ...argv]: readonly string[], ending: Ending): string {
  const first = ending === "switch-off" ? "then-switch-off" : "then-reboot";
  const exec = Buffer.from([file, first, ...argv].join("\0")).toString("base64url");
  const words = ending === "t" ? OWN_KERNEL_CMDLINE.replace("reboot=k", "reboot=t") : OWN_KERNEL_CMDLINE;
  return `${words} ${NO_PCI_CMDLINE} ${QUIET_CMDLINE} vmlet.exec=${exec} vmlet.tty=raw`;
}

/** What executes the kernel code of vmlet's guests, in words. */
export function guestAccelerator(): string {
  const kind = acceleratorKind();
  if (!hasHardwareVirtualization(kind)) return "software KVM";
  return isInLab() ? labInWords(kind) : "hardware";
}

/** Why a monitor that needs VT-x or AMD-V cannot run, or undefined. */
export function whyNoHardware(): string | undefined {
  const kind = acceleratorKind();
  if (hasHardwareVirtualization(kind)) return undefined;
  return kind === "none"
    ? "there is no /dev/kvm"
    : `needs VT-x or AMD-V; behind this /dev/kvm is ${kind === "kvm-pvm" ? "a software KVM" : "neither, as far as one can tell"}`;
}
