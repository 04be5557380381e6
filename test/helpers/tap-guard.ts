// Whether this host lets us make network interfaces.
import { closeSync } from "node:fs";
import { openTap } from "../../vmm/virtio/backends/tap-interface.js";
import { openVhostNet } from "../../vmm/virtio/backends/vhost-net.js";
import { HostError } from "../../vmm/errors.js";

/** Why there can be no TAP interface here; undefined if there can. */
export function tapProblem(): string | undefined {
  try {
    closeSync(openTap({ name: "auto" }).fd);
    return undefined;
  } catch (error) {
    if (error instanceof HostError) return error.message;
    throw error;
  }
}

/** Why this host's kernel moves no frames for a guest; undefined if it does. */
export function vhostProblem(): string | undefined {
  try {
    closeSync(openVhostNet());
    return undefined;
  } catch (error) {
    if (error instanceof HostError) return error.message;
    throw error;
  }
}
