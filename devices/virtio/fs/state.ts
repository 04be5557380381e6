// What a saved file system device goes on with: the transport's registers and rings, and nothing else. What a guest has
// open in its folder is known to the server alone, so only a device that no request has been put to is saved.
import type { GuestMemory } from "../../contracts.js";
import type { State, StateReader } from "../../state.js";
import { VIRTQ_RING_HEADER_SIZE, VIRTQ_USED_ELEMENT_SIZE } from "../constants.js";
import type { QueueAddresses } from "../queue.js";

/** `idx` lies after the 16-bit `flags` in both rings. */
const IDX_OFFSET = 2;

export function saveFs(): State {
  return {};
}

export function restoreFs(state: StateReader): void {
  state.only([]);
}

/**
 * Whether the driver has ever put a request into the queue. Both indices come back to 0 after 65,536 requests: the used
 * ring's elements, which a driver clears when it makes the ring, have numbers then.
 */
export function hasHadRequests(memory: GuestMemory, { size, availableGpa, usedGpa }: QueueAddresses): boolean {
  if (memory.loadU16(availableGpa + IDX_OFFSET) !== 0 || memory.loadU16(usedGpa + IDX_OFFSET) !== 0) return true;
  const start = usedGpa + VIRTQ_RING_HEADER_SIZE;
  for (let at = 0; at < size * VIRTQ_USED_ELEMENT_SIZE; at += 4) if (memory.readU32(start + at) !== 0) return true;
  return false;
}
