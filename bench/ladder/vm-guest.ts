// What every VM rung boots: the same kernel, initramfs and command line, up to the word that
// says how the monitor is told to end.
import { join } from "node:path";
import { packageRoot } from "../../vmm/cli/guest-files.js";
import { OWN_KERNEL_CMDLINE, QUIET_CMDLINE } from "../../vmm/config/defaults.js";
import { acceleratorKind, hasHardwareVirtualization } from "../../vmm/host.js";

export function vmKernel(): string {
  return join(packageRoot(), "guest/out/default/vmlinux");
}

/**
 * The program ends in a reboot, because this kernel (without ACPI) cannot switch off what is not
 * vmlet's. `reboot`: "k" for a monitor with an i8042, "t" (a triple fault) for one without.
 */
export function vmCmdline([file = "", ...argv]: readonly string[], reboot: "k" | "t"): string {
  const exec = Buffer.from([file, "then-reboot", ...argv].join("\0")).toString("base64url");
  const words = OWN_KERNEL_CMDLINE.replace("reboot=k", `reboot=${reboot}`);
  return `${words} ${QUIET_CMDLINE} vmlet.exec=${exec} vmlet.tty=raw`;
}

/** Why a monitor that needs VT-x or AMD-V cannot run, or undefined. */
export function whyNoHardware(): string | undefined {
  const kind = acceleratorKind();
  if (hasHardwareVirtualization(kind)) return undefined;
  return kind === "none"
    ? "there is no /dev/kvm"
    : `needs VT-x or AMD-V; behind this /dev/kvm is ${kind === "kvm-pvm" ? "a software KVM" : "neither, as far as one can tell"}`;
}
