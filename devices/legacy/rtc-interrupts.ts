// When the clock of cmos-rtc.ts interrupts, and with which flags: once a second after its update, at the alarm, and
// periodically. One thread does this for all; whoever serves the registers tells it that they have changed.
import type { SharedWords } from "../contracts.js";
import {
  RTC_AF,
  RTC_EVENTS,
  RTC_HOURS_ALARM,
  RTC_IRQF,
  RTC_MINUTES_ALARM,
  RTC_PF,
  RTC_REG_C,
  RTC_SECONDS_ALARM,
  RTC_SET,
  RTC_UF,
  clockMs,
  decodeHours,
  decodeNumber,
  registerA,
  registerB,
} from "./rtc-registers.js";

const SECOND_MS = 1000;
const DAY_S = 86_400;
/** An alarm register from here on matches every value. */
const ANY = 0xc0;
const CRYSTAL_HZ = 32_768;
/** Rates 1 and 2 are those of 8 and 9. */
const SLOW_RATES = 7;
/**
 * Linux waits for a second's beginning by an alarm for the next one. On a busy host it may have begun when the alarm has
 * been set, and would be waited for until tomorrow: an alarm of a moment ago is late, not a day early.
 */
const LATE_MS = 3000;

export class RtcInterrupts {
  readonly #words: SharedWords;
  /** All that was due until then has been said; `ms` of the clock. */
  #seenMs: number;
  /** The same for the alarm. */
  #alarmSeenMs: number;

  /** `hostMs`: the host's time, milliseconds since 1970. */
  constructor(words: SharedWords, hostMs: number) {
    this.#words = words;
    this.#seenMs = clockMs(words, hostMs);
    this.#alarmSeenMs = this.#seenMs - LATE_MS;
  }

  /** How long it is to the next interrupt, `ms`; undefined if none is enabled. */
  nextMs(hostMs: number): number | undefined {
    const now = clockMs(this.#words, hostMs);
    const due = this.#enabled()
      .map((event) => this.#dueMs(event))
      .filter((time) => time !== undefined);
    return due.length === 0 ? undefined : Math.max(0, Math.min(...due) - now);
  }

  /** Sets the flags of what is due; true if the interrupt line goes up by it. */
  raise(hostMs: number): boolean {
    const now = clockMs(this.#words, hostMs);
    const flags = this.#enabled()
      .filter((event) => (this.#dueMs(event) ?? Infinity) <= now)
      .reduce((all, event) => all | event, 0);
    this.#seenMs = now;
    if ((flags & RTC_AF) !== 0) this.#alarmSeenMs = now;
    return flags !== 0 && (Atomics.or(this.#words, RTC_REG_C, flags | RTC_IRQF) & RTC_IRQF) === 0;
  }

  /** After registers have changed: what was due before they did is no matter. */
  restart(hostMs: number): void {
    const now = clockMs(this.#words, hostMs);
    this.#seenMs = now;
    this.#alarmSeenMs = this.#alarmSeenMs > now ? now : Math.max(this.#alarmSeenMs, now - LATE_MS);
  }

  #enabled(): number[] {
    const enabled = registerB(this.#words);
    // While it is being set, the clock stands.
    const events = (enabled & RTC_SET) === 0 ? [RTC_UF, RTC_AF, RTC_PF] : [RTC_PF];
    return events.filter((event) => (enabled & RTC_EVENTS & event) !== 0);
  }

  /** When the event comes next after what has been seen. */
  #dueMs(event: number): number | undefined {
    switch (event) {
      case RTC_UF:
        return (Math.floor(this.#seenMs / SECOND_MS) + 1) * SECOND_MS;
      case RTC_AF:
        return this.#alarmMs();
      default: {
        const rate = registerA(this.#words) & 0xf;
        if (rate === 0) return undefined;
        return this.#seenMs + SECOND_MS / (CRYSTAL_HZ >> ((rate <= 2 ? rate + SLOW_RATES : rate) - 1));
      }
    }
  }

  #alarmMs(): number | undefined {
    const format = registerB(this.#words);
    const choices = (index: number, decode: (value: number, format: number) => number, count: number): number[] => {
      const value = this.#words[index] ?? 0;
      return value >= ANY ? Array.from({ length: count }, (_, i) => i) : [decode(value, format)];
    };
    const hours = choices(RTC_HOURS_ALARM, decodeHours, 24).filter((hour) => hour < 24);
    const minutes = choices(RTC_MINUTES_ALARM, decodeNumber, 60).filter((minute) => minute < 60);
    const seconds = choices(RTC_SECONDS_ALARM, decodeNumber, 60).filter((second) => second < 60);
    if (hours.length === 0 || minutes.length === 0 || seconds.length === 0) return undefined;
    const seenS = Math.floor(this.#alarmSeenMs / SECOND_MS);
    const midnight = seenS - (seenS % DAY_S);
    for (const day of [0, 1]) {
      for (const hour of hours) {
        // At most three of these loops' turns look at more than one hour's or minute's end.
        if (midnight + day * DAY_S + hour * 3600 + 3599 <= seenS) continue;
        for (const minute of minutes) {
          if (midnight + day * DAY_S + hour * 3600 + minute * 60 + 59 <= seenS) continue;
          for (const second of seconds) {
            const time = midnight + day * DAY_S + hour * 3600 + minute * 60 + second;
            if (time > seenS) return time * SECOND_MS;
          }
        }
      }
    }
    return undefined;
  }
}
