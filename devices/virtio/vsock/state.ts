// What a saved socket device goes on with: nothing but its context id, for people. Streams end where the machine is
// restored, and the id is the configuration's.
import type { State, StateReader } from "../../state.js";
import { VSOCK_MIN_GUEST_CID } from "./constants.js";

export const MAX_GUEST_CID = 2 ** 32 - 2;

export function saveVsock(guestCid: number): State {
  return { guestCid };
}

export function checkVsock(state: StateReader): void {
  state.only(["guestCid"]);
  state.integer("guestCid", { minimum: VSOCK_MIN_GUEST_CID, maximum: MAX_GUEST_CID });
}
