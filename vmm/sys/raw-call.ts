// System calls that the C library has no function for, by number: syscall(2). x86-64.
import { koffi, lazy } from "./koffi.js";

const native = lazy("syscall", "int64_t", ["int64_t", "int64_t", "int64_t", "int64_t", "int64_t", "int64_t"]);

/**
 * The result, or the negative errno. Arguments are numbers or addresses; who owns the memory behind an address keeps it until the
 * call is over.
 */
export function rawCall(number: number, a = 0, b = 0, c = 0, d = 0, e = 0): number {
  const result = native(number, a, b, c, d, e);
  return result < 0 ? -koffi.errno() : result;
}
