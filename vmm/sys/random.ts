// Random bytes of the kernel: getrandom(2). Node's own would load OpenSSL, which costs a start 7 ms.
import { systemCallError, uninterrupted } from "./errno.js";
import { lazy } from "./koffi.js";

const nativeGetrandom = lazy("getrandom", "int64_t", ["void *", "size_t", "uint"]);

/** Fills at most 256 bytes, which come whole. Throws SystemCallError. */
export function fillRandom(bytes: Uint8Array): void {
  const random = new Uint8Array(bytes.length);
  if (uninterrupted(() => nativeGetrandom(random, random.length, 0)) !== random.length)
    throw systemCallError("getrandom");
  bytes.set(random);
}
