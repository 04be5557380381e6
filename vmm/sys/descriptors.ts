// Descriptors that this process got from the kernel without Node: close(2). Not with Node's closeSync, which in a
// worker counts what it has opened itself, and would warn of each.
import { EBADF, systemCallError } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

const nativeClose = lazy("close", "int", ["int"]);

/** Whatever else close(2) answers, the descriptor is gone. */
export function closeDescriptor(fd: number): void {
  if (nativeClose(fd) < 0 && koffi.errno() === EBADF) throw systemCallError("close");
}
