// The registers of an MC146818 in words that several threads share, and how its time lies in them.
import type { SharedWords } from "../contracts.js";

export const RTC_SECONDS = 0x00;
export const RTC_SECONDS_ALARM = 0x01;
export const RTC_MINUTES = 0x02;
export const RTC_MINUTES_ALARM = 0x03;
export const RTC_HOURS = 0x04;
export const RTC_HOURS_ALARM = 0x05;
export const RTC_DAY_OF_WEEK = 0x06;
export const RTC_DAY_OF_MONTH = 0x07;
export const RTC_MONTH = 0x08;
export const RTC_YEAR = 0x09;
export const RTC_REG_A = 0x0a;
export const RTC_REG_B = 0x0b;
export const RTC_REG_C = 0x0c;
export const RTC_REG_D = 0x0d;
export const RTC_CENTURY = 0x32;

// Register B. The three enable bits lie where the flags of register C lie.
export const RTC_SET = 0x80;
export const RTC_BINARY = 0x04;
export const RTC_24_HOURS = 0x02;
// Register C.
export const RTC_IRQF = 0x80;
export const RTC_PF = 0x40;
export const RTC_AF = 0x20;
export const RTC_UF = 0x10;
/** Periodic, alarm and update-ended: enable bits of register B, flags of register C. */
export const RTC_EVENTS = RTC_PF | RTC_AF | RTC_UF;

/** How many there are. */
export const RTC_REGISTERS = 128;
/** Further than this the guest cannot set the clock, seconds. */
export const MAX_OFFSET_S = 0x7fff_ffff;

// Words: one a register, then what has none.
export const RTC_SELECTED = RTC_REGISTERS;
/** How far the guest has set the clock ahead of the host's, seconds. */
export const RTC_OFFSET_S = 129;
/** Nonzero: the interrupts that are due may be others than before. */
export const RTC_CHANGED = 130;
export const RTC_WORDS = 131;

/** Divider for 32.768 kHz, periodic rate 1,024 Hz. */
const REG_A_AT_POWER_ON = 0x26;
const REG_B_AT_POWER_ON = RTC_24_HOURS;
const PM = 0x80;

/** The words begin as zeroes: of registers A and B they hold what differs from power-on. */
export function registerA(words: SharedWords): number {
  return (words[RTC_REG_A] ?? 0) ^ REG_A_AT_POWER_ON;
}

export function setRegisterA(words: SharedWords, value: number): void {
  words[RTC_REG_A] = value ^ REG_A_AT_POWER_ON;
}

export function registerB(words: SharedWords): number {
  return (words[RTC_REG_B] ?? 0) ^ REG_B_AT_POWER_ON;
}

export function setRegisterB(words: SharedWords, value: number): void {
  words[RTC_REG_B] = value ^ REG_B_AT_POWER_ON;
}

/** The clock's time, `ms` since 1970, where the host's is `hostMs`. */
export function clockMs(words: SharedWords, hostMs: number): number {
  return hostMs + (words[RTC_OFFSET_S] ?? 0) * 1000;
}

function encode(value: number, format: number): number {
  return (format & RTC_BINARY) !== 0 ? value : ((Math.floor(value / 10) % 10) << 4) | (value % 10);
}

function decode(value: number, format: number): number {
  return (format & RTC_BINARY) !== 0 ? value : (value >> 4) * 10 + (value & 0xf);
}

function encodeHours(hours: number, format: number): number {
  if ((format & RTC_24_HOURS) !== 0) return encode(hours, format);
  return encode(hours % 12 || 12, format) | (hours >= 12 ? PM : 0);
}

/** In either register, the clock's or the alarm's. */
export function decodeHours(value: number, format: number): number {
  if ((format & RTC_24_HOURS) !== 0) return decode(value, format);
  return (decode(value & ~PM, format) % 12) + ((value & PM) !== 0 ? 12 : 0);
}

export function decodeNumber(value: number, format: number): number {
  return decode(value, format);
}

/** Value of each register of the clock at `time`; `format` is register B. Undefined for a register that shows no time. */
export function clockRegister(index: number, time: number, format: number): number | undefined {
  const date = new Date(time);
  switch (index) {
    case RTC_SECONDS:
      return encode(date.getUTCSeconds(), format);
    case RTC_MINUTES:
      return encode(date.getUTCMinutes(), format);
    case RTC_HOURS:
      return encodeHours(date.getUTCHours(), format);
    case RTC_DAY_OF_WEEK:
      return date.getUTCDay() + 1;
    case RTC_DAY_OF_MONTH:
      return encode(date.getUTCDate(), format);
    case RTC_MONTH:
      return encode(date.getUTCMonth() + 1, format);
    case RTC_YEAR:
      return encode(date.getUTCFullYear() % 100, format);
    case RTC_CENTURY:
      return encode(Math.floor(date.getUTCFullYear() / 100), format);
    default:
      return undefined;
  }
}

export const CLOCK_REGISTERS: readonly number[] = [
  ...[RTC_SECONDS, RTC_MINUTES, RTC_HOURS, RTC_DAY_OF_WEEK, RTC_DAY_OF_MONTH, RTC_MONTH, RTC_YEAR, RTC_CENTURY],
];

/** The time that the guest has written into the clock's registers, `ms` since 1970; NaN if there is no such time. */
export function writtenTime(words: SharedWords, format: number): number {
  const value = (index: number): number => decode(words[index] ?? 0, format);
  const year = value(RTC_CENTURY) * 100 + value(RTC_YEAR);
  const hours = decodeHours(words[RTC_HOURS] ?? 0, format);
  return Date.UTC(year, value(RTC_MONTH) - 1, value(RTC_DAY_OF_MONTH), hours, value(RTC_MINUTES), value(RTC_SECONDS));
}
