// QEMU's microvm machine with vmlet's kernel and initramfs; interpreted (TCG) where KVM has no hardware.
import { detectProgram, program as hostProgram } from "../detect.js";
import { CPUS, MEMORY_MIB, VM_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";
import { vmCmdline, vmKernel, whyNoHardware } from "../vm-guest.js";

export const qemuMicrovm: Rung = {
  name: "qemu-microvm",
  adds: "the same kernel and root under QEMU",
  family: "vm",
  limits: "own",
  network: "tap",
  takesDisk: true,
  debianPackage: "qemu-system-x86",
  timeoutMs: VM_TIMEOUT_MS,
  detect: () => detectProgram("qemu-system-x86_64", "qemu-system-x86"),
  open: (workspace) => {
    const isInterpreted = whyNoHardware() !== undefined;
    // Without ACPI, QEMU names its virtio devices on the command line: the kernel knows no other way.
    const machine = isInterpreted
      ? ["-M", "microvm,acpi=off,accel=tcg", "-cpu", "max"]
      : ["-M", "microvm,acpi=off,accel=kvm", "-cpu", "host"];
    return {
      command: ({ program, disk, network }) => [
        hostProgram("qemu-system-x86_64"),
        ...machine,
        ...["-m", String(MEMORY_MIB), "-smp", String(CPUS), "-nodefaults", "-no-user-config"],
        ...["-display", "none", "-no-reboot", "-serial", "stdio"],
        ...(disk === undefined ? [] : ["-drive", `if=none,id=disk,format=raw,file=${disk}`]),
        ...(disk === undefined ? [] : ["-device", "virtio-blk-device,drive=disk"]),
        ...(network?.kind === "tap" ? ["-netdev", `tap,id=net,ifname=${network.device},script=no,downscript=no`] : []),
        ...(network?.kind === "tap" ? ["-device", "virtio-net-device,netdev=net"] : []),
        ...["-kernel", vmKernel(), "-initrd", workspace.initrd, "-append", vmCmdline(program, "t")],
      ],
      accelerator: () => (isInterpreted ? "QEMU TCG, interpreted" : "hardware"),
    };
  },
};
