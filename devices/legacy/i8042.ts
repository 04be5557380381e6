// An i8042 keyboard controller: what kernels need to reset the machine and, if there is a keyboard, one that can press
// Ctrl-Alt-Del. Registers are in shared words, as any vCPU's thread may serve them. IBM PC AT technical reference,
// "Keyboard Controller"; scan codes are those of set 2, which is what a driver takes that finds translation turned off.
// Without a keyboard the status is always empty, so a guest that polls for a free input buffer goes on at once.
import type { AccessSize, BusDevice, InterruptLine, SharedWords } from "../contracts.js";
import { lock, unlock } from "../lock.js";
import { base64, type State, type StateReader } from "../state.js";

export const I8042_DATA = 0;
export const I8042_COMMAND = 4;
export const I8042_LENGTH = 5;

/** Pulse output line 0: the processor's reset. */
export const I8042_CMD_RESET = 0xfe;

// Status.
const OUTPUT_FULL = 1 << 0;
const SYSTEM_FLAG = 1 << 2;
const NOT_LOCKED = 1 << 4;

// Commands of the controller.
const READ_CONTROL = 0x20;
const WRITE_CONTROL = 0x60;
const SELF_TEST = 0xaa;
const KEYBOARD_TEST = 0xab;
const DISABLE_KEYBOARD = 0xad;
const ENABLE_KEYBOARD = 0xae;
const READ_OUTPUT_PORT = 0xd0;
const WRITE_OUTPUT_PORT = 0xd1;
const SELF_TEST_PASSED = 0x55;

// The control byte.
const KEYBOARD_INTERRUPT = 1 << 0;
const KEYBOARD_DISABLED = 1 << 4;

// The keyboard's own.
const IDENTIFY = 0xf2;
const RESET_KEYBOARD = 0xff;
const ACKNOWLEDGE = 0xfa;
const SELF_TEST_DONE = 0xaa;
/** An MF2 keyboard. */
const IDENTITY = [0xab, 0x83];
/** Both pressed and let go, set 2: Ctrl, Alt, and Delete, which is an extended key. */
const CTRL_ALT_DEL = [0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14];

const LOCK = 0;
/** 1: there is a keyboard. */
const PRESENT = 1;
const CONTROL = 2;
const OUTPUT_PORT = 3;
/** Command of the controller that takes the next byte of data, or 0. */
const PENDING = 4;
const COUNT = 5;
const BUFFER = 6;
const CAPACITY = 16;

export const I8042_WORDS = BUFFER + CAPACITY;

export class I8042 implements BusDevice {
  readonly name = "i8042";
  readonly #words: SharedWords;
  readonly #interrupt: InterruptLine;
  readonly #reset: () => void;

  /** Based at port 0x60; `words`: I8042_WORDS shared words, zeroes at first; `reset` is called when the guest pulses the line. */
  constructor(words: SharedWords, interrupt: InterruptLine, reset: () => void) {
    this.#words = words;
    this.#interrupt = interrupt;
    this.#reset = reset;
  }

  read(offset: number, _size: AccessSize): number {
    const words = this.#words;
    if (words[PRESENT] === 0) return 0;
    if (offset === I8042_COMMAND) return SYSTEM_FLAG | NOT_LOCKED | (Atomics.load(words, COUNT) > 0 ? OUTPUT_FULL : 0);
    if (offset !== I8042_DATA) return 0;
    lock(words, LOCK);
    const count = words[COUNT] ?? 0;
    const byte = words[BUFFER] ?? 0;
    if (count > 0) {
      words.copyWithin(BUFFER, BUFFER + 1, BUFFER + count);
      Atomics.store(words, COUNT, count - 1);
    }
    unlock(words, LOCK);
    // The next byte is another event.
    if (count > 1) this.#signal();
    return byte;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    const byte = value & 0xff;
    if (offset === I8042_COMMAND && byte === I8042_CMD_RESET) this.#reset();
    if (this.#words[PRESENT] === 0) return;
    lock(this.#words, LOCK);
    const hasAnswer = offset === I8042_COMMAND ? this.#command(byte) : offset === I8042_DATA && this.#data(byte);
    unlock(this.#words, LOCK);
    if (hasAnswer) this.#signal();
  }

  /** True if it was pressed; false without a keyboard, or if the guest has not read what was pressed before. */
  pressCtrlAltDel(): boolean {
    const words = this.#words;
    if (words[PRESENT] === 0) return false;
    lock(words, LOCK);
    const hasRoom = (words[COUNT] ?? 0) + CTRL_ALT_DEL.length <= CAPACITY;
    if (hasRoom) for (const byte of CTRL_ALT_DEL) this.#push(byte);
    unlock(words, LOCK);
    if (hasRoom) this.#signal();
    return hasRoom;
  }

  #command(byte: number): boolean {
    const words = this.#words;
    const control = words[CONTROL] ?? 0;
    words[PENDING] = 0;
    switch (byte) {
      case READ_CONTROL:
        return this.#answer(control);
      case READ_OUTPUT_PORT:
        return this.#answer(words[OUTPUT_PORT] ?? 0);
      case WRITE_CONTROL:
      case WRITE_OUTPUT_PORT:
        words[PENDING] = byte;
        return false;
      case SELF_TEST:
        return this.#answer(SELF_TEST_PASSED);
      case KEYBOARD_TEST:
        return this.#answer(0);
      case DISABLE_KEYBOARD:
        words[CONTROL] = control | KEYBOARD_DISABLED;
        return false;
      case ENABLE_KEYBOARD:
        words[CONTROL] = control & ~KEYBOARD_DISABLED;
        return false;
      default:
        return false;
    }
  }

  #data(byte: number): boolean {
    const words = this.#words;
    const pending = words[PENDING] ?? 0;
    words[PENDING] = 0;
    if (pending === WRITE_CONTROL) words[CONTROL] = byte;
    else if (pending === WRITE_OUTPUT_PORT) words[OUTPUT_PORT] = byte;
    else if (byte === IDENTIFY) return this.#answer(ACKNOWLEDGE, ...IDENTITY);
    else if (byte === RESET_KEYBOARD) return this.#answer(ACKNOWLEDGE, SELF_TEST_DONE);
    else return this.#answer(ACKNOWLEDGE);
    return false;
  }

  /** What was there before is gone: a driver that asks has nothing else to read first. */
  #answer(...bytes: readonly number[]): boolean {
    this.#words[COUNT] = 0;
    for (const byte of bytes) this.#push(byte);
    return true;
  }

  #push(byte: number): void {
    const count = this.#words[COUNT] ?? 0;
    if (count >= CAPACITY) return;
    this.#words[BUFFER + count] = byte;
    Atomics.store(this.#words, COUNT, count + 1);
  }

  #signal(): void {
    if (((this.#words[CONTROL] ?? 0) & KEYBOARD_INTERRUPT) !== 0) this.#interrupt.trigger();
  }
}

/** Before the guest runs. */
export function plugKeyboard(words: SharedWords): void {
  words[PRESENT] = 1;
}

export function hasKeyboard(words: SharedWords): boolean {
  return words[PRESENT] === 1;
}

/** While no vCPU runs. */
export function saveKeyboard(words: SharedWords): State {
  const count = words[COUNT] ?? 0;
  return {
    control: words[CONTROL] ?? 0,
    outputPort: words[OUTPUT_PORT] ?? 0,
    pending: words[PENDING] ?? 0,
    buffer: base64(Uint8Array.from(words.subarray(BUFFER, BUFFER + CAPACITY))),
    count,
  };
}

export function restoreKeyboard(words: SharedWords, state: StateReader): void {
  state.only(["control", "outputPort", "pending", "buffer", "count"]);
  const byte = (name: string): number => state.integer(name, { minimum: 0, maximum: 0xff });
  const buffer = state.bytes("buffer", CAPACITY);
  const count = state.integer("count", { minimum: 0, maximum: CAPACITY });
  words.set([byte("control"), byte("outputPort"), byte("pending"), count, ...buffer], CONTROL);
  words[PRESENT] = 1;
}
