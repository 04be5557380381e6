// Whether this host lets us make network interfaces, and what its kernel does for a guest.
import { closeSync } from "node:fs";
import { openTap } from "../../vmm/virtio/backends/tap-interface.js";
import { openVhostNet } from "../../vmm/virtio/backends/vhost-net.js";
import { openVhostVsock } from "../../vmm/virtio/backends/vhost-vsock.js";
import { HostError } from "../../vmm/errors.js";

/** Why there can be no TAP interface here; undefined if there can. */
export function tapProblem(): string | undefined {
  return problemOf(() => openTap({ name: "auto" }).fd);
}

/** Why this host's kernel moves no frames for a guest; undefined if it does. */
export function vhostProblem(): string | undefined {
  return problemOf(openVhostNet);
}

/** Why this host's kernel has no sockets with a guest of that context id; undefined if it has. */
export function vhostVsockProblem(cid: number): string | undefined {
  return problemOf(() => openVhostVsock(cid));
}

function problemOf(open: () => number): string | undefined {
  try {
    closeSync(open());
    return undefined;
  } catch (error) {
    if (error instanceof HostError) return error.message;
    throw error;
  }
}
