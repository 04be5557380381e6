// Error numbers of the kernel, and the error that a refused system call becomes.
import { getSystemErrorName } from "node:util";
import { KvmIoctlError, SystemCallError } from "../errors.js";
import { cureFor } from "./cures.js";
import { koffi } from "./koffi.js";

export const EINTR = 4;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENODEV = 19;
export const ENOTTY = 25;
export const EPIPE = 32;
export const ENOSYS = 38;
export const EOPNOTSUPP = 95;

/** Builds the error for the call that has just failed. */
export function systemCallError(request: string, errno: number = koffi.errno()): SystemCallError {
  let name: string;
  try {
    name = getSystemErrorName(-errno);
  } catch {
    name = `errno ${String(errno)}`;
  }
  const Class = request.startsWith("KVM_") ? KvmIoctlError : SystemCallError;
  return new Class(request, errno, name, cureFor(request, name));
}
