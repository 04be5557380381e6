// Descriptors that this process got from the kernel without Node: close(2), dup2(2), fcntl(2). Not with Node's closeSync, which in a
// worker counts what it has opened itself, and would warn of each.
import { EBADF, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

const nativeDup2 = lazy("dup2", "int", ["int", "int"]);

/** `onto` becomes the same as `fd`, whatever it was; dup2(2). */
export function duplicateOnto(fd: number, onto: number): void {
  if (uninterrupted(() => nativeDup2(fd, onto)) < 0) throw systemCallError("dup2");
}

const nativeFcntl = lazy("fcntl", "int", ["int", "int", "int"]);
const F_DUPFD_CLOEXEC = 1030;

/** fcntl(2) with a number for its argument; `name`: the command's, for what is thrown, a SystemCallError. */
export function fcntl(fd: number, name: string, command: number, value: number): number {
  const result = uninterrupted(() => nativeFcntl(fd, command, value));
  if (result < 0) throw systemCallError(name);
  return result;
}

/** Another descriptor of the same opening, its locks included; no program that is started gets it. */
export function duplicate(fd: number): number {
  return fcntl(fd, "F_DUPFD_CLOEXEC", F_DUPFD_CLOEXEC, 0);
}

const nativeClose = lazy("close", "int", ["int"]);

/** Whatever else close(2) answers, the descriptor is gone. */
export function closeDescriptor(fd: number): void {
  if (nativeClose(fd) < 0 && koffi.errno() === EBADF) throw systemCallError("close");
}
