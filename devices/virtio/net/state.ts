// What a saved network device goes on with: its address, which the driver has read, whether the link was up, and
// how much of its limits was used up. Frames are none of it: a network loses some when a machine stops, too.
import { base64, type State, type StateReader } from "../../state.js";
import type { Throttle } from "../throttle.js";
import { isUsableMac, MAC_ADDRESS_BYTES } from "./mac-address.js";

export interface NetState {
  readonly mac: Uint8Array;
  readonly isLinkUp: boolean;
}

export interface NetThrottles {
  readonly rx: Throttle;
  readonly tx: Throttle;
}

export function saveNet({ mac, isLinkUp }: NetState, { rx, tx }: NetThrottles): State {
  return { mac: base64(mac), isLinkUp, rxLimiter: rx.save(), txLimiter: tx.save() };
}

export function restoreNet(state: StateReader, { rx, tx }: NetThrottles): NetState {
  state.only(["mac", "isLinkUp", "rxLimiter", "txLimiter"]);
  const mac = state.bytes("mac", MAC_ADDRESS_BYTES);
  if (!isUsableMac(mac)) throw state.at("mac").wrong("an address that an interface may have");
  const isLinkUp = state.boolean("isLinkUp");
  rx.restore(state.at("rxLimiter"));
  tx.restore(state.at("txLimiter"));
  return { mac, isLinkUp };
}
