// ACPI fixed hardware: PM1a event and control blocks, reset register, power-management timer.
// ACPI 6.4 §4.8.3. Sleeping means S5 only, and there are no events to report.
import type { AccessSize, BusDevice, SharedWords } from "../contracts.js";

// Offsets from the PM1a event block.
export const PM1_STS = 0;
export const PM1_EN = 2;
export const PM1_CNT = 4;
export const RESET_REG = 6;
export const PM_TMR = 8;
export const ACPI_PM_LENGTH = 12;

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
export const ACPI_PM_WORDS = 2;

export interface PowerControl {
  powerOff(): void;
  reset(): void;
}

export class AcpiPm implements BusDevice {
  readonly name = "acpi-pm";
  readonly #words: SharedWords;
  readonly #power: PowerControl;
  readonly #nowMs: () => number;

  constructor(words: SharedWords, power: PowerControl, nowMs: () => number = () => performance.now()) {
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
        return Math.floor((this.#nowMs() / 1000) * PM_TIMER_HZ) >>> 0;
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
      default:
        break;
    }
  }
}
