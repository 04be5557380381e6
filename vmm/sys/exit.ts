// Leaves the process at once. Node's own exit tears threads down, and a thread that is still
// starting can be in a native call then, which aborts; it also takes milliseconds.
import { libc } from "./koffi.js";

/** Nothing runs after this: the caller has written everything. */
export function exitNow(status: number): never {
  libc.func("_exit", "void", ["int"])(status);
  throw new Error("_exit has returned");
}
