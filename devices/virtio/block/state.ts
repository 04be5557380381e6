// What a saved block device goes on with. Requests are none of it: all that were taken have been answered.
import type { State, StateReader } from "../../state.js";
import type { Throttle } from "../throttle.js";

/** `bytes` of the disk, which the driver has read once and for all. */
export function saveBlock(size: number, limiter: Throttle): State {
  return { size, limiter: limiter.save() };
}

export function restoreBlock(state: StateReader, size: number, limiter: Throttle): void {
  state.only(["size", "limiter"]);
  if (state.integer("size", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER }) !== size) {
    throw state.at("size").wrong(`the size of the disk, ${String(size)} bytes`);
  }
  limiter.restore(state.at("limiter"));
}
