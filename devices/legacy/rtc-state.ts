// A saved real-time clock. It shows the time of the host that it is on, moved as the guest has set it: it goes on as if
// it had never been saved.
import type { SharedWords } from "../contracts.js";
import { base64, type State, type StateReader } from "../state.js";
import {
  MAX_OFFSET_S,
  RTC_CHANGED,
  RTC_IRQF,
  RTC_OFFSET_S,
  RTC_REG_A,
  RTC_REG_B,
  RTC_REG_C,
  RTC_REGISTERS,
  RTC_SELECTED,
  registerA,
  registerB,
  setRegisterA,
  setRegisterB,
} from "./rtc-registers.js";

/** While no vCPU runs. */
export function saveRtc(words: SharedWords): State {
  const registers = Uint8Array.from(words.subarray(0, RTC_REGISTERS));
  registers[RTC_REG_A] = registerA(words);
  registers[RTC_REG_B] = registerB(words);
  return { registers: base64(registers), selected: words[RTC_SELECTED] ?? 0, offsetSeconds: words[RTC_OFFSET_S] ?? 0 };
}

export function restoreRtc(words: SharedWords, state: StateReader): void {
  state.only(["registers", "selected", "offsetSeconds"]);
  const registers = state.bytes("registers", RTC_REGISTERS);
  const selected = state.integer("selected", { minimum: 0, maximum: RTC_REGISTERS - 1 });
  const offset = state.integer("offsetSeconds", { minimum: -MAX_OFFSET_S, maximum: MAX_OFFSET_S });
  words.set(registers);
  setRegisterA(words, registers[RTC_REG_A] ?? 0);
  setRegisterB(words, registers[RTC_REG_B] ?? 0);
  words[RTC_SELECTED] = selected;
  words[RTC_OFFSET_S] = offset;
  // Whoever makes its interrupts finds out which are wanted.
  Atomics.store(words, RTC_CHANGED, 1);
}

/** After a restore: true if the interrupt line is up, whose edge may have been on its way to the guest. */
export function isRtcInterruptUp(words: SharedWords): boolean {
  return (Atomics.load(words, RTC_REG_C) & RTC_IRQF) !== 0;
}
