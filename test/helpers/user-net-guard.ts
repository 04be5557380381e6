// Whether this host can give a guest a network in user mode.
import { closeSync } from "node:fs";
import { startPasst } from "../../vmm/virtio/backends/passt.js";
import { HostError } from "../../vmm/errors.js";

/** Why there can be none here; undefined if there can. */
export function userNetProblem(): string | undefined {
  try {
    closeSync(startPasst({ forwards: [], reachesHost: true }, 1500));
    return undefined;
  } catch (error) {
    if (error instanceof HostError) return error.message;
    throw error;
  }
}
