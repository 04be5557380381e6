// What a saved entropy device goes on with. The bytes that it gives are never saved: each VM gets its own.
import type { State, StateReader } from "../../state.js";
import type { Throttle } from "../throttle.js";

export function saveRng(throttle: Throttle): State {
  return { limiter: throttle.save() };
}

export function restoreRng(state: StateReader, throttle: Throttle): void {
  state.only(["limiter"]);
  throttle.restore(state.at("limiter"));
}
