// Nobody tells which pages of a guest the host's kernel writes its sockets' packets to. So the kernel brings none while pages are
// followed: well for the moments of a move, but not for as long as `watch` follows them.
import type { ResolvedConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";

/** Throws SnapshotError for a guest whose pages cannot be followed for long. */
export function refuseKernelSockets({ vsock }: ResolvedConfig): void {
  if (vsock === undefined || vsock.path !== undefined) return;
  throw new SnapshotError(
    "watch: the host's kernel serves the guest's sockets, and tells nobody which pages it writes",
    {
      cure: "leave it out, or give the socket device a Unix socket (path=)",
    },
  );
}
