// What a saved file system device goes on with, besides the transport's registers and rings: how the driver's session began.
// What a guest has open in its folder is known to the server alone. So a device is saved as long as its driver has asked for
// nothing but that beginning, which another server can be asked for again.
import type { GuestMemory } from "../../contracts.js";
import { base64, type State, type StateReader } from "../../state.js";
import { VIRTQ_RING_HEADER_SIZE, VIRTQ_USED_ELEMENT_SIZE } from "../constants.js";
import type { QueueAddresses } from "../queue.js";
import type { FsSession } from "./backend.js";
import {
  FUSE_IN_HEADER_BYTES,
  FUSE_IN_HEADER_OPCODE,
  FUSE_INIT,
  MAX_FUSE_INIT_BYTES,
  MAX_JOURNAL_BYTES,
} from "./constants.js";

/** `idx` lies after the 16-bit `flags` in both rings. */
const IDX_OFFSET = 2;

/** `init`: the request that began the session; undefined before it. */
export function saveFs(init: Uint8Array | undefined, journal: Uint8Array): State {
  return {
    init: init === undefined ? null : base64(init),
    ...(journal.length === 0 ? {} : { journal: base64(journal) }),
  };
}

export function restoreFs(state: StateReader): FsSession | undefined {
  const hasJournal = state.names(2).includes("journal");
  state.only(hasJournal ? ["init", "journal"] : ["init"]);
  const init = state.at("init");
  if (init.isNull && !hasJournal) return undefined;
  const bytes = init.asBytes({ minimum: 0, maximum: MAX_FUSE_INIT_BYTES });
  if (!isInit(bytes)) throw init.wrong("a request that begins a session");
  const journal = hasJournal ? state.bytes("journal", { minimum: 0, maximum: MAX_JOURNAL_BYTES }) : new Uint8Array(0);
  return { init: bytes, journal };
}

/** Whether this is a whole FUSE_INIT. */
export function isInit(request: Uint8Array): boolean {
  if (request.length <= FUSE_IN_HEADER_BYTES || request.length > MAX_FUSE_INIT_BYTES) return false;
  const view = new DataView(request.buffer, request.byteOffset, request.length);
  return view.getUint32(0, true) === request.length && view.getUint32(FUSE_IN_HEADER_OPCODE, true) === FUSE_INIT;
}

/**
 * Whether the driver has put so many requests into the queue, all of which are answered, and no more, ever. Both indices come
 * back after 65,536 requests: all elements of the used ring, which a driver clears when it makes the ring, have numbers then.
 */
export function hasHadOnly(
  count: number,
  memory: GuestMemory,
  { size, availableGpa, usedGpa }: QueueAddresses,
): boolean {
  const indices = [availableGpa, usedGpa].map((gpa) => memory.loadU16(gpa + IDX_OFFSET));
  if (indices.some((index) => index !== count)) return false;
  const start = usedGpa + VIRTQ_RING_HEADER_SIZE;
  for (let at = count * VIRTQ_USED_ELEMENT_SIZE; at < size * VIRTQ_USED_ELEMENT_SIZE; at += 4) {
    if (memory.readU32(start + at) !== 0) return false;
  }
  return true;
}

/** Whether all that the driver has put into the queue has been answered. */
export function isIdle(memory: GuestMemory, { availableGpa, usedGpa }: QueueAddresses): boolean {
  return memory.loadU16(availableGpa + IDX_OFFSET) === memory.loadU16(usedGpa + IDX_OFFSET);
}
