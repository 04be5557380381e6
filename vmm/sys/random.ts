// Random bytes of the kernel: getrandom(2). Node's own would load OpenSSL, which costs a start 7 ms.
import { systemCallError, uninterrupted } from "./errno.js";
import { lazy } from "./koffi.js";

const nativeGetrandom = lazy("getrandom", "int64_t", ["void *", "size_t", "uint"]);

/** At most 256, which come whole. Throws SystemCallError. */
export function randomBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // SAFETY: `length` bytes are written during this call only.
  if (uninterrupted(() => nativeGetrandom(bytes, length, 0)) !== length) throw systemCallError("getrandom");
  return bytes;
}
