// The process's exit code, from how a run has ended.
import { ConfigError, DiskError, KernelImageError, SnapshotError, ImageError } from "../errors.js";
import {
  EXIT_CANNOT_WRITE,
  EXIT_CONFIG,
  EXIT_GUEST,
  EXIT_HALTED,
  EXIT_HOST,
  EXIT_INTERNAL,
  EXIT_LEFT,
  EXIT_OUTPUT_LOST,
  EXIT_PANIC,
  EXIT_REBOOT,
  EXIT_SIGNAL_BASE,
  EXIT_TRIPLE_FAULT,
  EXIT_USAGE,
} from "../host/exit-codes.js";
import type { GuestOutcome, VmExit } from "../machine/vm-exit.js";
import { describeSystemError } from "../host/errno-text.js";
import { OutputError } from "../host/say.js";
import { UnwritableError } from "./unwritable-error.js";
import { UsageError } from "./usage-error.js";

const SIGPIPE = 13;

/** As a shell says of what it cannot run. */
export const COMMAND_NOT_RUN = 126;

/** A guest that was given a command and is off without having begun it: its /init is not vmlet's. */
export function hasMissedCommand({ outcome, exitStatus, milestones }: VmExit): boolean {
  return outcome === "poweroff" && exitStatus === undefined && milestones.commandStart === undefined;
}

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

/** What the user has given makes no sense. */
const USERS = [ConfigError, KernelImageError, DiskError, SnapshotError, ImageError];

export function exitCodeOfError(error: unknown): number {
  if (error instanceof UsageError) return EXIT_USAGE;
  if (error instanceof UnwritableError) return EXIT_CANNOT_WRITE;
  if (error instanceof OutputError) return error.isBrokenPipe ? EXIT_SIGNAL_BASE + SIGPIPE : EXIT_OUTPUT_LOST;
  if (USERS.some((kind) => error instanceof kind)) return EXIT_CONFIG;
  switch ((error as { code?: unknown }).code) {
    case "ERR_HOST":
    case "ERR_KVM_IOCTL":
    case "ERR_SYSTEM_CALL":
    case "ERR_LAB":
      return EXIT_HOST;
    case "ERR_VCPU_EXIT":
    case "ERR_AGENT":
    case "ERR_GUEST_REQUEST":
    case "ERR_EXEC":
      return EXIT_GUEST;
    default:
      return describeSystemError(error) === undefined ? EXIT_INTERNAL : EXIT_HOST;
  }
}
