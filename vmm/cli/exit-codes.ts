// What `vmlet` exits with. A guest that powers off decides itself, 0 to 255; the rest is in
// the README's table. 64 to 78 are those of <sysexits.h>.
import { ConfigError, DiskError, KernelImageError } from "../errors.js";
import type { GuestOutcome } from "../vm-exit.js";

export const EXIT_USAGE = 64;
export const EXIT_CONFIG = 65;
export const EXIT_HOST = 69;
export const EXIT_INTERNAL = 70;
/** `vmlet doctor`: no /dev/kvm can be used, the lab can. EX_OSFILE. */
export const EXIT_LAB_ONLY = 72;
export const EXIT_CANNOT_WRITE = 73;
export const EXIT_REBOOT = 100;
export const EXIT_PANIC = 101;
export const EXIT_TRIPLE_FAULT = 102;
/** The user has left with Ctrl-A x. */
export const EXIT_LEFT = 103;
/** The guest did something that the monitor cannot answer. */
export const EXIT_GUEST = 104;
/** Every vCPU has halted for ever, without an interrupt controller that could wake it. */
export const EXIT_HALTED = 105;
export const EXIT_SIGNAL_BASE = 128;

/** `status` is what the guest's init reported; a power-off without a report is success. */
export function exitCodeOf(outcome: GuestOutcome, status: number | undefined): number {
  switch (outcome) {
    case "poweroff":
      return status ?? 0;
    case "reboot":
      return EXIT_REBOOT;
    case "panic":
      return EXIT_PANIC;
    case "triple-fault":
      return EXIT_TRIPLE_FAULT;
    case "halted":
      return EXIT_HALTED;
    case "killed":
      return EXIT_LEFT;
  }
}

export function exitCodeOfError(error: unknown): number {
  if (error instanceof UsageError) return EXIT_USAGE;
  if (error instanceof ConfigError || error instanceof KernelImageError || error instanceof DiskError)
    return EXIT_CONFIG;
  switch ((error as { code?: unknown }).code) {
    case "ERR_HOST":
    case "ERR_KVM_IOCTL":
    case "ERR_LAB":
      return EXIT_HOST;
    case "ERR_VCPU_EXIT":
      return EXIT_GUEST;
    default:
      return EXIT_INTERNAL;
  }
}

/** The command line itself is wrong; the message says where, `--help` says how. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "UsageError";
  }
}
