// The digest of something that is in memory.
import { createHash } from "node:crypto";

/** 64 hexadecimal digits. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
