// The bytes of the command that the guest's init runs: standard input, output and error as three rings in memory that
// guest and monitor share. Init is a user program, so a byte costs the guest no driver and no interrupt; it rings
// at the boot timer's page, and the monitor wakes it through the guest's terminal. guest/init/channel.h is the
// other end. The guest may write anything anywhere in here: what is ours is kept here, what is its is checked.

import type { State, StateReader } from "../state.js";

/** Register of the boot timer's page; 4 bytes, read: where the channel's memory is, 0 without one; write: ring. */
export const BOOT_TIMER_CHANNEL = 0x10;

// Words of the control page, in `bytes` from its start.
/** Bytes of output that the guest has put, and that the monitor has taken, since the start; modulo 2^32. */
export const CHANNEL_OUTPUT_HEAD = 0x00;
export const CHANNEL_OUTPUT_TAIL = 0x04;
/** Bytes of input that the monitor has put, and that the guest has taken. */
export const CHANNEL_INPUT_HEAD = 0x08;
export const CHANNEL_INPUT_TAIL = 0x0c;
/** 1: nothing comes after CHANNEL_INPUT_HEAD. */
export const CHANNEL_INPUT_END = 0x10;
/** Written by the guest: CHANNEL_CLOSED and the others. */
export const CHANNEL_STATE = 0x14;
/** 1: the guest sleeps until there is input, its end, or room for output; or one of CHANNEL_WAITS_FOR_…. */
export const CHANNEL_GUEST_WAITS = 0x18;
/** The layout's number, by which an init of another version knows that this is not for it. */
export const CHANNEL_VERSION = 0x1c;
/** 1: ring when input has been taken, there is more of it. */
export const CHANNEL_MONITOR_WAITS = 0x20;

/** 1: init looks for a notice before it does anything else, and need not be woken for one. */
export const CHANNEL_GUEST_LOOKS = 0x24;
/** As CHANNEL_OUTPUT_HEAD and CHANNEL_OUTPUT_TAIL, of standard error. */
export const CHANNEL_ERROR_HEAD = 0x28;
export const CHANNEL_ERROR_TAIL = 0x2c;
/** 1: ring when there is output, or standard error: all has been taken. The guest writes 0 when it rings. */
export const CHANNEL_OUTPUT_ASKED = 0x30;
export const CHANNEL_ERROR_ASKED = 0x34;

/** In the control page: what a guest that goes on from a snapshot is told (restore-block.ts). */
export const CHANNEL_NOTICE = 0x100;

export const CHANNEL_LAYOUT = 3;
export const CHANNEL_WAITS_FOR_ALL = 1;
/** Not for room. */
export const CHANNEL_WAITS_FOR_INPUT = 2;
/** Neither for room nor for what only says that more may be sent. */
export const CHANNEL_WAITS_FOR_REQUESTS = 3;
/** No init has come yet, or it knows no channel. */
export const CHANNEL_CLOSED = 0;
export const CHANNEL_OPEN = 1;
/** Open, but nobody reads the command's input any more. */
export const CHANNEL_INPUT_CLOSED = 2;

export const CHANNEL_CONTROL_BYTES = 0x1000;
export const CHANNEL_RING_BYTES = 0x10_0000;
/** What a guest of a template is told may be so long (restore-block.ts). */
export const CHANNEL_BLOCK_BYTES = 0x2_0000;
/** Of output at once, so that the guest goes on filling the ring while they are written. */
const PIECE_BYTES = CHANNEL_RING_BYTES / 4;
/** The control page, the rings of output, input and error. */
export const CHANNEL_BYTES = CHANNEL_CONTROL_BYTES + 3 * CHANNEL_RING_BYTES;

/** From here on output is not left to gather. */
const MUCH_BYTES = 0x1_0000;
const NOTHING = new Uint8Array(0);

/** "later": whoever waits for requests alone need not be woken. "more": the rest follows at once. */
export type InputUrgency = "now" | "later" | "more";
/** Who is woken, up to which of CHANNEL_WAITS_FOR_…. */
const WOKEN = { now: CHANNEL_WAITS_FOR_REQUESTS, later: CHANNEL_WAITS_FOR_INPUT, more: 0 } as const;

/** Standard output and standard error. */
export type CommandOutput = 1 | 2;

/** One of the command's outputs: what the guest has put, and the monitor takes. */
class OutputRing {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #head: number;
  readonly #tail: number;
  readonly #asked: number;
  /** Taken so far, kept here: the guest cannot move it. */
  taken = 0;

  constructor(words: Int32Array, bytes: Uint8Array, head: number, tail: number, asked: number) {
    this.#words = words;
    this.#bytes = bytes;
    this.#head = head / 4;
    this.#tail = tail / 4;
    this.#asked = asked / 4;
  }

  /** What waits, `bytes`; more than the ring has room for is nonsense. */
  get used(): number {
    return (Atomics.load(this.#words, this.#head) - this.taken) >>> 0;
  }

  /** A view of the first `used` bytes, as far as they lie together, up to PIECE_BYTES. */
  peek(used: number): Uint8Array {
    const start = (this.taken >>> 0) % CHANNEL_RING_BYTES;
    return this.#bytes.subarray(start, Math.min(start + Math.min(used, PIECE_BYTES), CHANNEL_RING_BYTES));
  }

  /** From now on the guest rings when there is something. */
  ask(): void {
    Atomics.store(this.#words, this.#asked, 1);
  }

  consume(length: number): void {
    this.taken = (this.taken + length) | 0;
    this.store();
  }

  store(): void {
    Atomics.store(this.#words, this.#tail, this.taken);
  }
}

export class CommandChannel {
  readonly #wake: () => void;
  /** Undefined once the memory has gone. */
  #words: Int32Array | undefined;
  readonly #output: Uint8Array;
  readonly #input: Uint8Array;
  readonly #control: Uint8Array;
  readonly #outputs: Readonly<Record<CommandOutput, OutputRing>>;
  #inputHead = 0;
  #hasRefused = false;
  #isBroken = false;

  /** `memory` is CHANNEL_BYTES of zeroes; `wake` makes the guest's terminal readable. */
  constructor(memory: ArrayBuffer, wake: () => void) {
    this.#wake = wake;
    const words = new Int32Array(memory, 0, CHANNEL_CONTROL_BYTES / 4);
    const [output, input, error] = [0, 1, 2].map(
      (ring) => new Uint8Array(memory, CHANNEL_CONTROL_BYTES + ring * CHANNEL_RING_BYTES, CHANNEL_RING_BYTES),
    ) as [Uint8Array, Uint8Array, Uint8Array];
    this.#words = words;
    this.#control = new Uint8Array(memory, 0, CHANNEL_CONTROL_BYTES);
    this.#output = output;
    this.#input = input;
    this.#outputs = {
      1: new OutputRing(words, output, CHANNEL_OUTPUT_HEAD, CHANNEL_OUTPUT_TAIL, CHANNEL_OUTPUT_ASKED),
      2: new OutputRing(words, error, CHANNEL_ERROR_HEAD, CHANNEL_ERROR_TAIL, CHANNEL_ERROR_ASKED),
    };
    this.#store(CHANNEL_VERSION, CHANNEL_LAYOUT);
    for (const ring of Object.values(this.#outputs)) ring.ask();
  }

  /**
   * What a guest that begins with a template is told, before it runs. False if this guest does not wait for it: it has
   * no init that has opened the channel, or one that has a command already.
   */
  putRestoreBlock(block: Uint8Array): boolean {
    const hasCommand = this.#load(CHANNEL_OUTPUT_HEAD) !== 0 || this.#load(CHANNEL_INPUT_TAIL) !== 0;
    if (!this.isOpen || hasCommand || block.length > CHANNEL_BLOCK_BYTES) return false;
    this.#output.set(block);
    return true;
  }

  /** What a guest that goes on from a snapshot is told, whatever it was doing; false without an init that hears it. */
  putNotice(block: Uint8Array): boolean {
    if (!this.isOpen || CHANNEL_NOTICE + block.length > CHANNEL_CONTROL_BYTES) return false;
    this.#control.set(block, CHANNEL_NOTICE);
    if (this.#load(CHANNEL_GUEST_LOOKS) === 0) this.#wake();
    return true;
  }

  /** What the guest has written and nobody has taken is dropped: it was meant for whoever had this guest before. */
  dropOutput(): void {
    for (const output of [1, 2] as const) {
      const { used } = this.#outputs[output];
      if (used <= CHANNEL_RING_BYTES) this.consumeOutput(used, output);
    }
  }

  /** The guest's init uses the channel. */
  get isOpen(): boolean {
    return this.#load(CHANNEL_STATE) !== CHANNEL_CLOSED;
  }

  /** False once nobody in the guest reads the input. */
  get takesInput(): boolean {
    return this.#load(CHANNEL_STATE) !== CHANNEL_INPUT_CLOSED;
  }

  /** Some of what waits of an output, up to PIECE_BYTES that lie together; empty if there is none. */
  peekOutput(output: CommandOutput = 1): Uint8Array {
    return Uint8Array.prototype.slice.call(this.viewOutput(output));
  }

  /** The same as a view: the guest can change the bytes until they are consumed, and does afterwards. */
  viewOutput(output: CommandOutput = 1): Uint8Array {
    if (this.#words === undefined) return NOTHING;
    const ring = this.#outputs[output];
    let { used } = ring;
    if (used === 0) {
      // The guest changes its count and then looks at the word; we write the word and then look at the count.
      ring.ask();
      ({ used } = ring);
    }
    // More than there is room for is nonsense; taken for an amount, it would be up to 4 GiB of it.
    if (used > CHANNEL_RING_BYTES) this.#isBroken = true;
    return this.#isBroken || used === 0 ? NOTHING : ring.peek(used);
  }

  /** So much waits that it is worth writing, without waiting for more. */
  hasMuch(output: CommandOutput = 1): boolean {
    return this.#words !== undefined && this.#outputs[output].used >= MUCH_BYTES;
  }

  /** The first `length` bytes of what `peekOutput` has shown are written. */
  consumeOutput(length: number, output: CommandOutput = 1): void {
    if (length === 0 || this.#words === undefined) return;
    const ring = this.#outputs[output];
    ring.consume(length);
    // Whoever has written it may look again only after a while.
    if (ring.used === 0) ring.ask();
    // A wake-up costs the guest an interrupt and more: it comes when there is room for many pieces.
    if (ring.used <= CHANNEL_RING_BYTES / 2) this.#wakeIfWaiting(CHANNEL_WAITS_FOR_ALL);
  }

  /**
   * Input for the command: how many bytes fitted. After a refusal `takeRoom` becomes true some time.
   */
  putInput(bytes: Uint8Array, urgency: InputUrgency = "now"): number {
    if (this.#words === undefined) return 0;
    // What nobody reads is taken and dropped, as a pipe's last reader would have done to its writer.
    if (!this.takesInput) return bytes.length;
    let taken = this.#fill(bytes);
    if (taken < bytes.length) {
      this.#hasRefused = true;
      this.#store(CHANNEL_MONITOR_WAITS, 1);
      // The guest may have made room before it could see that.
      taken += this.#fill(bytes.subarray(taken));
    }
    if (taken > 0) this.#wakeIfWaiting(WOKEN[urgency]);
    return taken;
  }

  /** There is no input after what was put. */
  endInput(): void {
    this.#store(CHANNEL_INPUT_END, 1);
    this.#wakeIfWaiting(CHANNEL_WAITS_FOR_REQUESTS);
  }

  /** True once after a refusal, when half of the ring is empty. */
  takeRoom(): boolean {
    if (!this.#hasRefused || (this.takesInput && this.#inputUsed() > CHANNEL_RING_BYTES / 2)) return false;
    this.#hasRefused = false;
    this.#store(CHANNEL_MONITOR_WAITS, 0);
    return true;
  }

  /** What is kept here and not in the memory, which is saved by itself. */
  save(): State {
    return {
      outputTail: this.#outputs[1].taken >>> 0,
      errorTail: this.#outputs[2].taken >>> 0,
      inputHead: this.#inputHead >>> 0,
      hasRefused: this.#hasRefused,
      isBroken: this.#isBroken,
    };
  }

  /** The memory is that of the saved guest. */
  restore(state: StateReader): void {
    state.only(["outputTail", "errorTail", "inputHead", "hasRefused", "isBroken"]);
    const count = (name: string): number => state.integer(name, { minimum: 0, maximum: 0xffff_ffff }) | 0;
    const [outputTail, errorTail, inputHead] = [count("outputTail"), count("errorTail"), count("inputHead")];
    this.#hasRefused = state.boolean("hasRefused");
    this.#isBroken = state.boolean("isBroken");
    this.#outputs[1].taken = outputTail;
    this.#outputs[2].taken = errorTail;
    this.#inputHead = inputHead;
    for (const ring of Object.values(this.#outputs)) {
      ring.store();
      ring.ask();
    }
    this.#store(CHANNEL_INPUT_HEAD, inputHead);
  }

  /** Before the memory goes. */
  detach(): void {
    this.#words = undefined;
  }

  #inputUsed(): number {
    const used = (this.#inputHead - this.#load(CHANNEL_INPUT_TAIL)) >>> 0;
    return Math.min(used, CHANNEL_RING_BYTES);
  }

  #fill(bytes: Uint8Array): number {
    const count = Math.min(bytes.length, CHANNEL_RING_BYTES - this.#inputUsed());
    const start = (this.#inputHead >>> 0) % CHANNEL_RING_BYTES;
    const first = Math.min(count, CHANNEL_RING_BYTES - start);
    this.#input.set(bytes.subarray(0, first), start);
    this.#input.set(bytes.subarray(first, count), 0);
    this.#inputHead = (this.#inputHead + count) | 0;
    this.#store(CHANNEL_INPUT_HEAD, this.#inputHead);
    return count;
  }

  /**
   * The guest sets the word and then looks once more before it sleeps; we change what it waits for and then look
   * at the word. `most`: of CHANNEL_WAITS_FOR_…, the last that is meant. Both sides' accesses are full barriers, so one of the two sees the other's.
   */
  #wakeIfWaiting(most: number): void {
    const words = this.#words;
    if (words === undefined || Atomics.load(words, CHANNEL_GUEST_WAITS / 4) >>> 0 > most) return;
    if (Atomics.exchange(words, CHANNEL_GUEST_WAITS / 4, 0) !== 0) this.#wake();
  }

  #load(offset: number): number {
    return this.#words === undefined ? 0 : Atomics.load(this.#words, offset / 4);
  }

  #store(offset: number, value: number): void {
    if (this.#words !== undefined) Atomics.store(this.#words, offset / 4, value);
  }
}
