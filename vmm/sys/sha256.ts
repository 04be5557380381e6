// SHA-256 of bytes that lie in memory, by the OpenSSL that node carries or is linked to: one call, which every OpenSSL has, and
// none of Node's own module for it. SHA256(3).
import { libc, type NativeFunction } from "./koffi.js";
import { newSha256 } from "./node-crypto.js";

const LENGTH = 32;

/** Null: this node has no such function for others. */
let native: NativeFunction | null | undefined;

/** In hexadecimal digits. */
export function sha256(bytes: Uint8Array): string {
  native ??= find();
  if (native === null) return newSha256().update(bytes).digest("hex");
  const digest = Buffer.alloc(LENGTH);
  // SAFETY: `bytes` are read, and 32 bytes written, during this call only.
  native(bytes, bytes.length, digest);
  return digest.toString("hex");
}

function find(): NativeFunction | null {
  try {
    return libc.func("SHA256", "void *", ["void *", "size_t", "void *"]);
  } catch {
    return null;
  }
}
