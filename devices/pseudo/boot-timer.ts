// Boot timer and exit status, one MMIO page: how the guest's init talks to the monitor without
// a driver. The byte at offset 0 marks a milestone; Firecracker's boot timer takes the same
// byte 123 at the same place. The other registers are ours.
import type { AccessSize, BusDevice } from "../contracts.js";
import { BOOT_TIMER_CHANNEL } from "./command-channel.js";

/** 1 byte, write: a milestone has been reached. */
export const BOOT_TIMER_MILESTONE = 0x0;
/** 4 bytes, write: exit status of the guest's command. */
export const BOOT_TIMER_EXIT_STATUS = 0x4;
/** 4 bytes, write 1: power off, for guests without ACPI. */
export const BOOT_TIMER_POWER_OFF = 0x8;
/** 4 bytes, read: tells the guest's init that the page is this device. */
export const BOOT_TIMER_MAGIC_REGISTER = 0xc;
/** 4 bytes, write 1: the guest waits for a snapshot to be taken here. */
export const BOOT_TIMER_SNAPSHOT = 0x14;
/** "VMLT", little-endian. */
export const BOOT_TIMER_MAGIC = 0x544c4d56;

export interface BootTimerHost {
  milestone(code: number): void;
  /** 0 to 255. */
  exitStatus(status: number): void;
  powerOff(): void;
  /** The guest has done something to the command's channel. */
  channelRang(): void;
  /** The guest is where a snapshot may be taken, and does not go on before its next exit is answered. */
  snapshotPoint(): void;
}

export class BootTimer implements BusDevice {
  readonly name = "boot-timer";
  readonly #host: BootTimerHost;
  readonly #channelGpa: number;

  /** `channelGpa`: where the command's channel is, 0 without one. */
  constructor(host: BootTimerHost, channelGpa: number) {
    this.#host = host;
    this.#channelGpa = channelGpa;
  }

  read(offset: number, _size: AccessSize): number {
    if (offset === BOOT_TIMER_MAGIC_REGISTER) return BOOT_TIMER_MAGIC;
    return offset === BOOT_TIMER_CHANNEL ? this.#channelGpa : 0;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    if (offset === BOOT_TIMER_MILESTONE) this.#host.milestone(value & 0xff);
    else if (offset === BOOT_TIMER_EXIT_STATUS) this.#host.exitStatus(value & 0xff);
    else if (offset === BOOT_TIMER_POWER_OFF && value === 1) this.#host.powerOff();
    else if (offset === BOOT_TIMER_CHANNEL) this.#host.channelRang();
    else if (offset === BOOT_TIMER_SNAPSHOT && value === 1) this.#host.snapshotPoint();
  }
}
