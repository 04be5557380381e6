// What every monitor boots in these benches: the same kernel, initramfs and command line, up to
// the word that says how to reboot. The guest's command ends in a reboot because that ends all
// three monitors at once: QEMU's microvm has no i8042 and takes a triple fault instead.
import {
  DEFAULT_CMDLINE,
  DEFAULT_MEMORY_MIB,
  NO_PCI_CMDLINE,
  QUIET_CMDLINE,
  consoleParameter,
} from "../../vmm/config/defaults.js";

export const GUEST_MIB = DEFAULT_MEMORY_MIB;
/** A stock kernel unpacks itself and needs more. */
export const DEBIAN_MIB = 256;

/** `command` for the guest's init as vmlet itself passes it on. */
export function cmdline(command: readonly string[], reboot: "k" | "t", hasPci = false): string {
  const words = `${DEFAULT_CMDLINE.replace("reboot=k", `reboot=${reboot}`)}${hasPci ? "" : ` ${NO_PCI_CMDLINE}`}`;
  const exec = Buffer.from(command.join("\0")).toString("base64url");
  return `${consoleParameter("serial")} ${words} ${QUIET_CMDLINE} vmlet.exec=${exec} vmlet.tty=raw`;
}

export interface GuestImages {
  readonly kernel: string;
  readonly initrd: string;
  readonly memoryMib: number;
  /** The guest has a PCI bus. */
  readonly hasPci?: boolean;
}

export function vmletArguments(
  { kernel, initrd, memoryMib, hasPci }: GuestImages,
  command: readonly string[],
): string[] {
  const guest = ["--kernel", kernel, "--initrd", initrd, "--memory", String(memoryMib)];
  return ["boot", "--accel", "kvm", ...guest, "--bare-cmdline", "--cmdline", cmdline(command, "k", hasPci)];
}

export function monitorArguments({ kernel, initrd, memoryMib }: GuestImages, command: readonly string[]): string[] {
  return [kernel, initrd, cmdline(command, "k"), String(memoryMib)];
}

/** QEMU without anything that a micro-VM does not need; `cpu` for hosts that need features taken away. */
export function qemuArguments(
  { kernel, initrd, memoryMib, hasPci }: GuestImages,
  command: readonly string[],
  cpu = "host",
  machine = "microvm",
): string[] {
  return [
    ...["-M", `${machine},accel=kvm`, "-cpu", cpu, "-m", String(memoryMib), "-nodefaults", "-no-user-config"],
    ...["-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-kernel", kernel, "-initrd", initrd, "-append", cmdline(command, "t", hasPci)],
  ];
}
