// ACPI fixed hardware: PM1a event and control blocks, reset register, power-management timer, general-purpose events.
// ACPI 6.4 §4.8.3, §4.8.4. Sleeping means S5 only; the one event is that the VM's generation has changed.
import type { AccessSize, BusDevice, SharedWords } from "../contracts.js";
import type { State, StateReader } from "../state.js";

// Offsets from the PM1a event block.
export const PM1_STS = 0;
export const PM1_EN = 2;
export const PM1_CNT = 4;
export const RESET_REG = 6;
export const PM_TMR = 8;
export const GPE0_STS = 12;
export const GPE0_EN = 13;
export const ACPI_PM_LENGTH = 14;
/** Of the general-purpose event block: status, enable. */
export const GPE0_LENGTH = 2;

/** General-purpose events, by their bit; the DSDT has their methods. */
export const GPE_GENERATION = 0;
const GPES = 1 << GPE_GENERATION;

const SCI_EN = 1 << 0;
const SLP_TYP_SHIFT = 10;
const SLP_TYP_MASK = 7;
export const SLP_EN = 1 << 13;
/** SLP_TYP of the soft-off state; the DSDT's \_S5 says the same. */
export const ACPI_SLEEP_TYPE_S5 = 5;

const PM_TIMER_HZ = 3_579_545;

// Shared words.
const ENABLE = 0;
const CONTROL = 1;
/** Ticks that the timer is ahead of the host's clock, modulo 2^32. */
const TIMER_OFFSET = 2;
const GPE_STATUS = 3;
const GPE_ENABLE = 4;
export const ACPI_PM_WORDS = 5;

export interface PowerControl {
  powerOff(): void;
  reset(): void;
}

export class AcpiPm implements BusDevice {
  readonly name = "acpi-pm";
  readonly #words: SharedWords;
  readonly #power: PowerControl;
  readonly #nowMs: () => number;

  constructor(words: SharedWords, power: PowerControl, nowMs: () => number = hostMs) {
    this.#words = words;
    this.#power = power;
    this.#nowMs = nowMs;
  }

  read(offset: number, _size: AccessSize): number {
    switch (offset) {
      case PM1_EN:
        return this.#words[ENABLE] ?? 0;
      case PM1_CNT:
        return (this.#words[CONTROL] ?? 0) | SCI_EN;
      case PM_TMR:
        return timer(this.#words, this.#nowMs());
      case GPE0_STS:
        return this.#words[GPE_STATUS] ?? 0;
      case GPE0_EN:
        return this.#words[GPE_ENABLE] ?? 0;
      default:
        return 0;
    }
  }

  write(offset: number, _size: AccessSize, value: number): void {
    switch (offset) {
      case PM1_EN:
        this.#words[ENABLE] = value & 0xffff;
        break;
      case PM1_CNT:
        // SLP_EN is write-only and never read back.
        this.#words[CONTROL] = value & 0xffff & ~SLP_EN;
        if ((value & SLP_EN) !== 0 && ((value >> SLP_TYP_SHIFT) & SLP_TYP_MASK) === ACPI_SLEEP_TYPE_S5) {
          this.#power.powerOff();
        }
        break;
      case RESET_REG:
        if ((value & 0xff) === 1) this.#power.reset();
        break;
      case GPE0_STS:
        // Cleared by writing 1.
        this.#words[GPE_STATUS] = (this.#words[GPE_STATUS] ?? 0) & ~value;
        break;
      case GPE0_EN:
        this.#words[GPE_ENABLE] = value & GPES;
        break;
      default:
        break;
    }
  }
}

/** Of the host, and not of a thread as performance.now(): each vCPU's thread shows the same timer. */
function hostMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function timer(words: SharedWords, nowMs: number): number {
  return (Math.floor((nowMs / 1000) * PM_TIMER_HZ) + (words[TIMER_OFFSET] ?? 0)) >>> 0;
}

/** While no vCPU runs: true if the system control interrupt is due, because the guest has enabled the event. */
export function raiseGpe(words: SharedWords, gpe: number): boolean {
  const bit = 1 << gpe;
  words[GPE_STATUS] = (words[GPE_STATUS] ?? 0) | bit;
  return ((words[GPE_ENABLE] ?? 0) & bit) !== 0;
}

/** While no vCPU runs. */
export function saveAcpiPm(words: SharedWords, nowMs = hostMs()): State {
  return {
    enable: words[ENABLE] ?? 0,
    control: words[CONTROL] ?? 0,
    timer: timer(words, nowMs),
    gpeStatus: words[GPE_STATUS] ?? 0,
    gpeEnable: words[GPE_ENABLE] ?? 0,
  };
}

/** The timer goes on from where it stood. */
export function restoreAcpiPm(words: SharedWords, state: StateReader, nowMs = hostMs()): void {
  state.only(["enable", "control", "timer", "gpeStatus", "gpeEnable"]);
  const control = state.integer("control", { minimum: 0, maximum: 0xffff });
  if ((control & SLP_EN) !== 0) throw state.at("control").wrong("a value without SLP_EN, which is never kept");
  words[ENABLE] = state.integer("enable", { minimum: 0, maximum: 0xffff });
  words[CONTROL] = control;
  words[GPE_STATUS] = state.integer("gpeStatus", { minimum: 0, maximum: GPES });
  words[GPE_ENABLE] = state.integer("gpeEnable", { minimum: 0, maximum: GPES });
  const saved = state.integer("timer", { minimum: 0, maximum: 0xffff_ffff });
  words[TIMER_OFFSET] = 0;
  words[TIMER_OFFSET] = (saved - timer(words, nowMs)) | 0;
}
