// Every default of a VM, named, with the reason for its value.

/** Room for our kernel, busybox and a small program; Firecracker's default as well. */
/** Templates of the processor that go by a name; vmm/x86/cpu-template.ts has them. */
export const CPU_TEMPLATE_NAMES = ["T2", "T2S", "T2CL", "T2A"] as const;
export type CpuTemplateName = (typeof CPU_TEMPLATE_NAMES)[number];

export const DEFAULT_MEMORY_MIB = 128;
/** The boot tables, a kernel and its initramfs need about this much. */
export const MIN_MEMORY_MIB = 16;
/** 52-bit guest-physical addresses end far beyond; this bound catches a unit mistake. */
export const MAX_MEMORY_MIB = 1024 * 1024;

/** Of a VM that runs an image's program: room for a usual one. */
export const DEFAULT_RUN_MEMORY_MIB = 512;
/** A kernel and its root's cache. */
export const MIN_RUN_MEMORY_MIB = 64;

export const DEFAULT_CPUS = 1;
/** As many as the MP table and our own kernel's NR_CPUS hold. */
export const MAX_CPUS = 32;

/** As many virtio devices as memory/layout.ts has interrupt lines for. */
export const MAX_VIRTIO_DEVICES = 14;

/** What the kernel's console and the guest's terminal is; the first word of every command line that is not bare. */
export function consoleParameter(console: "serial" | "virtio"): string {
  return console === "virtio" ? "console=hvc0" : "console=ttyS0";
}

/**
 * The command line that every guest gets unless the caller asks for a bare one.
 * - `reboot=k panic=-1`: a reboot or panic ends in the i8042 reset, which the monitor sees at once
 * - `i8042.noaux i8042.nomux i8042.dumbkbd`: no half-second probe for a keyboard that is not there
 * - `8250.nr_uarts=1`: probe one serial port, not four
 * - `tsc=reliable`: no watchdog clock source is needed over the kvm-clock
 * - `no_timer_check`: the interrupt controllers are KVM's, they need no test loop
 */
export const DEFAULT_CMDLINE =
  "reboot=k panic=-1 i8042.noaux i8042.nomux i8042.dumbkbd 8250.nr_uarts=1 tsc=reliable no_timer_check";

/** The same for the package's own kernels, which are told less: every word is looked up many times. */
export const OWN_KERNEL_CMDLINE = "reboot=k panic=-1 tsc=reliable no_timer_check";

/** For a guest without a PCI bus: nobody looks for one. The package's `fast` kernel knows of none and does without the word. */
export const NO_PCI_CMDLINE = "pci=off";

/** Keeps all but emergencies off the console: each line is serial exits. */
export const QUIET_CMDLINE = "quiet loglevel=1";
/** Errors of the kernel, too: that it has killed a program for want of memory, why it has panicked. */
export const ERRORS_CMDLINE = "quiet loglevel=4";
