// What assigned devices reach: a guest's RAM, at the guest's addresses. The host's kernel has two ways to it: groups in a container
// (container.ts), and devices with an address space of iommufd (iommufd.ts), the newer.
import { closeSync, constants, openSync } from "node:fs";
import { HostError, SystemCallError } from "../../errors.js";
import type { MemoryRegion } from "../../memory/guest-memory.js";
import { EBUSY } from "../../sys/errno.js";

export interface DmaSpace {
  /** The descriptor of a device, whose accesses are translated from now on. Throws HostError. */
  openDevice(group: string, address: string): number;
  /** From now on devices reach this memory; its pages are pinned. Throws HostError. */
  map(regions: readonly MemoryRegion[]): void;
  /** No device reaches any memory any more. Throws SystemCallError. */
  unmap(): void;
  /** After the devices' descriptors. */
  close(): void;
}

/** Opens a node of /dev for reading and writing. Throws HostError with what helps. */
export function openNode(path: string, cureOfAbsence: string): number {
  try {
    return openSync(path, constants.O_RDWR);
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    const cures: Readonly<Record<string, string>> = {
      ENOENT: cureOfAbsence,
      EACCES: `run as root, or give yourself the file: sudo chown $USER ${path}`,
      EPERM: `run as root, or give yourself the file: sudo chown $USER ${path}`,
      EBUSY: "another program has the devices of this group: end it",
    };
    throw new HostError(`${path} cannot be opened (${code})`, { cause: error, cure: cures[code] });
  }
}

/** Opens something by that descriptor; closes it if that fails. */
export function closedOnError<Result>(fd: number, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The host's kernel has refused a device; `what` says in which step, `taken` by which numbers it says that somebody else has it. */
export function refusedDevice(address: string, what: string, cause: unknown, taken = [EBUSY]): HostError {
  const isTaken = cause instanceof SystemCallError && taken.includes(cause.errno);
  return new HostError(`Assigned device ${address}: ${what} (${nameOf(cause)})`, {
    cause,
    cure: isTaken
      ? "another program has it, or a device of its group: end that program"
      : "the last lines of the host's kernel log (dmesg) say why",
  });
}

/** The host's kernel has refused to map a region. */
export function notPinned({ size }: MemoryRegion, cause: unknown): HostError {
  const mib = String(Math.ceil(size / 2 ** 20));
  return new HostError(
    `${mib} MiB of the guest's memory cannot be pinned for its assigned devices (${nameOf(cause)})`,
    { cause, cure: "give the guest less memory, or let this process lock all of it: ulimit -l unlimited" },
  );
}

function nameOf(error: unknown): string {
  return error instanceof SystemCallError ? error.errnoName : String(error);
}
