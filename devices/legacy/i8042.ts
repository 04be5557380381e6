// The part of an i8042 keyboard controller that kernels need to reset the machine.
// The status is always empty, so a guest that polls for a free input buffer goes on at once.
import type { AccessSize, BusDevice } from "../contracts.js";

export const I8042_DATA = 0;
export const I8042_COMMAND = 4;
export const I8042_LENGTH = 5;

/** Pulse output line 0: the processor's reset. */
export const I8042_CMD_RESET = 0xfe;

export class I8042 implements BusDevice {
  readonly name = "i8042";
  readonly #reset: () => void;

  /** Based at port 0x60; `reset` is called when the guest pulses the line. */
  constructor(reset: () => void) {
    this.#reset = reset;
  }

  read(_offset: number, _size: AccessSize): number {
    return 0;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    if (offset === I8042_COMMAND && (value & 0xff) === I8042_CMD_RESET) this.#reset();
  }
}
