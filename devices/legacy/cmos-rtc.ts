// MC146818 real-time clock: the host's UTC in BCD, and 128 bytes of memory.
// Left out on purpose: alarms and periodic interrupts; setting the clock changes nothing.
import type { AccessSize, BusDevice, SharedWords } from "../contracts.js";

export const RTC_INDEX = 0;
export const RTC_DATA = 1;
export const RTC_LENGTH = 2;

const RTC_SECONDS = 0x00;
const RTC_MINUTES = 0x02;
const RTC_HOURS = 0x04;
const RTC_DAY_OF_WEEK = 0x06;
const RTC_DAY_OF_MONTH = 0x07;
const RTC_MONTH = 0x08;
const RTC_YEAR = 0x09;
const RTC_REG_A = 0x0a;
const RTC_REG_B = 0x0b;
const RTC_REG_C = 0x0c;
const RTC_REG_D = 0x0d;
const RTC_CENTURY = 0x32;

/** Divider for 32.768 kHz, periodic rate 1,024 Hz; no update in progress, ever. */
const REG_A_VALUE = 0x26;
/** 24 hours, BCD. */
const REG_B_VALUE = 0x02;
/** RAM and time are valid. */
const REG_D_VALUE = 0x80;

export const RTC_WORDS = 1;

function bcd(value: number): number {
  return ((Math.floor(value / 10) % 10) << 4) | (value % 10);
}

export class CmosRtc implements BusDevice {
  readonly name = "rtc";
  readonly #words: SharedWords;
  readonly #now: () => Date;

  /** `words`: RTC_WORDS shared words, the selected index. `now` gives the time to show. */
  constructor(words: SharedWords, now: () => Date = () => new Date()) {
    this.#words = words;
    this.#now = now;
  }

  read(offset: number, _size: AccessSize): number {
    if (offset !== RTC_DATA) return 0xff;
    return this.#register(this.#words[0] ?? 0);
  }

  write(offset: number, _size: AccessSize, value: number): void {
    // Bit 7 masks NMIs and is no part of the index.
    if (offset === RTC_INDEX) this.#words[0] = value & 0x7f;
  }

  #register(index: number): number {
    const now = this.#now();
    switch (index) {
      case RTC_SECONDS:
        return bcd(now.getUTCSeconds());
      case RTC_MINUTES:
        return bcd(now.getUTCMinutes());
      case RTC_HOURS:
        return bcd(now.getUTCHours());
      case RTC_DAY_OF_WEEK:
        return now.getUTCDay() + 1;
      case RTC_DAY_OF_MONTH:
        return bcd(now.getUTCDate());
      case RTC_MONTH:
        return bcd(now.getUTCMonth() + 1);
      case RTC_YEAR:
        return bcd(now.getUTCFullYear() % 100);
      case RTC_CENTURY:
        return bcd(Math.floor(now.getUTCFullYear() / 100));
      case RTC_REG_A:
        return REG_A_VALUE;
      case RTC_REG_B:
        return REG_B_VALUE;
      case RTC_REG_C:
        return 0;
      case RTC_REG_D:
        return REG_D_VALUE;
      default:
        return 0;
    }
  }
}
