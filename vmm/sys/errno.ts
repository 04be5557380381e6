// Error numbers of the kernel, and the error that a refused system call becomes.
import { getSystemErrorName } from "node:util";
import { KvmIoctlError, SystemCallError } from "../errors.js";
import { cureFor } from "./cures.js";
import { koffi } from "./koffi.js";

export const EINTR = 4;
export const EINVAL = 22;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const EBUSY = 16;
export const ENODEV = 19;
export const ENOTTY = 25;
export const EPIPE = 32;
export const EBADFD = 77;
export const ENOSYS = 38;
export const EOPNOTSUPP = 95;
export const ECONNREFUSED = 111;

/** What Node has no names for. */
const MORE_NAMES: Readonly<Record<number, string>> = {
  [EBADFD]: "EBADFD",
  35: "EDEADLK",
  37: "ENOLCK",
  62: "ETIME",
  117: "EUCLEAN",
  121: "EREMOTEIO",
  122: "EDQUOT",
  123: "ENOMEDIUM",
  124: "EMEDIUMTYPE",
  132: "ERFKILL",
  133: "EHWPOISON",
};

/** As in errno.h. */
export function errnoName(errno: number): string {
  const name = getSystemErrorName(-errno);
  return name.startsWith("E") ? name : (MORE_NAMES[errno] ?? `errno ${String(errno)}`);
}

/** So often a call is made again that something interrupts; then it is an error like any other. */
const MAX_INTERRUPTIONS = 1000;

/**
 * Makes a call until nothing interrupts it. KVM_CREATE_VM and others return EINTR of themselves when any signal
 * is on its way to the thread, a timer of another VM's for example: nothing has been done then.
 */
export function uninterrupted(call: () => number): number {
  let result = call();
  for (let times = 0; result < 0 && koffi.errno() === EINTR && times < MAX_INTERRUPTIONS; times++) result = call();
  return result;
}

/** Builds the error for the call that has just failed. */
export function systemCallError(request: string, errno: number = koffi.errno()): SystemCallError {
  const name = errnoName(errno);
  const Class = request.startsWith("KVM_") ? KvmIoctlError : SystemCallError;
  return new Class(request, errno, name, cureFor(request, name));
}
