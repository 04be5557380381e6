// State of the legacy devices, which lies in shared words. vmm/machine/thread-machine.ts knows where.
import type { State, StateReader } from "../../devices/state.js";
import type { VmShared } from "../vcpu/shared.js";
import { DEVICE_WORDS } from "./thread-machine.js";

export function saveLegacy(shared: VmShared): State {
  return { words: [...shared.deviceWords(0, DEVICE_WORDS)] };
}

export function restoreLegacy(shared: VmShared, state: StateReader): void {
  state.only(["words"]);
  const words = state.list("words", DEVICE_WORDS);
  const target = shared.deviceWords(0, DEVICE_WORDS);
  words.forEach((word, i) => {
    target[i] = word.asInteger({ minimum: -0x8000_0000, maximum: 0x7fff_ffff });
  });
}
