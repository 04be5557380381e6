// MC146818 real-time clock: 128 registers, of which the first ten and the century show the host's UTC, moved by
// what the guest has set; the rest is memory. Motorola MC146818A data sheet. What a guest sets is gone with the
// VM. Its interrupts are rtc-interrupts.ts's matter.
import type { AccessSize, BusDevice, SharedWords } from "../contracts.js";
import {
  CLOCK_REGISTERS,
  MAX_OFFSET_S,
  RTC_CHANGED,
  RTC_EVENTS,
  RTC_HOURS_ALARM,
  RTC_MINUTES_ALARM,
  RTC_OFFSET_S,
  RTC_REG_A,
  RTC_REG_B,
  RTC_REG_C,
  RTC_REG_D,
  RTC_SECONDS_ALARM,
  RTC_SELECTED,
  RTC_SET,
  RTC_UF,
  clockMs,
  clockRegister,
  registerA,
  registerB,
  setRegisterA,
  setRegisterB,
  writtenTime,
} from "./rtc-registers.js";

export const RTC_INDEX = 0;
export const RTC_DATA = 1;
export const RTC_LENGTH = 2;

/** RAM and time are valid. */
const REG_D_VALUE = 0x80;
/** Register A: an update is going on. The chip takes 2 ms for it, each second. */
const UPDATE_IN_PROGRESS = 0x80;
const UPDATE_BEGINS_AT_MS = 998;

export class CmosRtc implements BusDevice {
  readonly name = "rtc";
  readonly #words: SharedWords;
  readonly #changed: () => void;
  readonly #now: () => number;

  /**
   * `words`: RTC_WORDS shared words, zeroes at first. `changed` is called after other interrupts than before may be due, with
   * RTC_CHANGED set. `now`: milliseconds since 1970.
   */
  constructor(words: SharedWords, changed: () => void = () => undefined, now: () => number = () => Date.now()) {
    this.#words = words;
    this.#changed = changed;
    this.#now = now;
  }

  read(offset: number, _size: AccessSize): number {
    return offset === RTC_DATA ? this.#register(this.#words[RTC_SELECTED] ?? 0) : 0xff;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    // Bit 7 masks NMIs and is no part of the index.
    if (offset === RTC_INDEX) this.#words[RTC_SELECTED] = value & 0x7f;
    else if (offset === RTC_DATA) this.#setRegister(this.#words[RTC_SELECTED] ?? 0, value & 0xff);
  }

  #register(index: number): number {
    const words = this.#words;
    const format = registerB(words);
    switch (index) {
      case RTC_REG_A:
        return registerA(words) | (this.#isUpdating(format) ? UPDATE_IN_PROGRESS : 0);
      case RTC_REG_B:
        return format;
      case RTC_REG_C:
        // Reading lets the interrupt line go.
        return Atomics.exchange(words, RTC_REG_C, 0) & 0xff;
      case RTC_REG_D:
        return REG_D_VALUE;
      default: {
        const time = (format & RTC_SET) === 0 ? clockMs(words, this.#now()) : undefined;
        return (time === undefined ? undefined : clockRegister(index, time, format)) ?? words[index] ?? 0;
      }
    }
  }

  /** Who waits for a second's beginning by polling sees this bit come and go. */
  #isUpdating(format: number): boolean {
    return (format & RTC_SET) === 0 && this.#now() % 1000 >= UPDATE_BEGINS_AT_MS;
  }

  #setRegister(index: number, value: number): void {
    const words = this.#words;
    const format = registerB(words);
    switch (index) {
      case RTC_REG_A:
        setRegisterA(words, value & ~UPDATE_IN_PROGRESS);
        break;
      case RTC_REG_B:
        this.#setFormat(format, value);
        break;
      case RTC_REG_C:
      case RTC_REG_D:
        return;
      default:
        words[index] = value;
        // Written while it runs, a register of the clock holds for the rest of a moment: time is set as one.
        if ((format & RTC_SET) === 0 && CLOCK_REGISTERS.includes(index)) this.#setRunning(index, value, format);
    }
    const concernsInterrupts =
      [RTC_REG_A, RTC_REG_B, RTC_SECONDS_ALARM, RTC_MINUTES_ALARM, RTC_HOURS_ALARM].includes(index) ||
      CLOCK_REGISTERS.includes(index);
    if (concernsInterrupts && ((format | registerB(words)) & RTC_EVENTS) !== 0) {
      Atomics.store(words, RTC_CHANGED, 1);
      this.#changed();
    }
  }

  #setFormat(before: number, value: number): void {
    const words = this.#words;
    const stops = (value & RTC_SET) !== 0;
    if (stops && (before & RTC_SET) === 0) this.#latch(before);
    // The data sheet: SET clears the enable bit of the update-ended interrupt.
    setRegisterB(words, stops ? value & ~RTC_UF : value);
    if (!stops && (before & RTC_SET) !== 0) this.#goOnFrom(writtenTime(words, value));
  }

  /** The registers keep the time while the guest writes another one into them. */
  #latch(format: number): void {
    const time = clockMs(this.#words, this.#now());
    for (const index of CLOCK_REGISTERS) this.#words[index] = clockRegister(index, time, format) ?? 0;
  }

  #setRunning(index: number, value: number, format: number): void {
    this.#latch(format);
    this.#words[index] = value;
    this.#goOnFrom(writtenTime(this.#words, format));
  }

  #goOnFrom(time: number): void {
    const offset = Math.round(time / 1000) - Math.floor(this.#now() / 1000);
    // No such time, such as a month of 0: the clock goes on as it was.
    if (Math.abs(offset) <= MAX_OFFSET_S) this.#words[RTC_OFFSET_S] = offset;
  }
}
