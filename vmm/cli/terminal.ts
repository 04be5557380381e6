// The user's side of the console: raw mode, the Ctrl-A prefix, standard input with back-pressure.
import { isTerminal } from "../sys/files.js";
import { FileInput, type InputSource } from "../host/file-input.js";
import { TerminalInput } from "./input-source.js";

const STDIN = 0;
/** Ctrl-A, as in QEMU and screen. */
const PREFIX = 0x01;
/** ASCII EOT: the end of a line's input for a terminal in canonical mode. */
export const END_OF_INPUT = 0x04;
const NEWLINE = 0x0a;
/** `bytes` that are kept of what is typed into a guest that does not read; the rest is dropped. */
const TYPED_AHEAD_BYTES = 64 * 1024;

export interface InputTarget {
  /** Takes bytes for the guest; the count that it has taken. */
  input(bytes: Uint8Array): number;
  inputBreak(): void;
  leave(): void;
  togglePause(): void;
}

/** Standard input on its way to the guest. */
export class Terminal {
  readonly #isInteractive = isTerminal(STDIN);
  readonly #source: InputSource = this.#isInteractive ? new TerminalInput() : new FileInput();
  readonly #target: InputTarget;
  #pending: Uint8Array = new Uint8Array();
  #afterPrefix = false;
  #lastByte = NEWLINE;
  #ended = false;

  constructor(target: InputTarget) {
    this.#target = target;
  }

  /** Starts reading. Call `close` on every way out: it restores the terminal. */
  open(): void {
    this.#source.open(
      (bytes) => {
        this.#take(bytes);
      },
      () => {
        this.#end();
      },
    );
  }

  close(): void {
    this.#source.close();
  }

  /** The guest has room again. */
  resume(): void {
    this.#flush();
  }

  #take(chunk: Uint8Array): void {
    const bytes = this.#isInteractive ? this.#withoutCommands(chunk) : chunk;
    this.#lastByte = bytes.at(-1) ?? this.#lastByte;
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    this.#flush();
  }

  #flush(): void {
    if (this.#pending.length > 0) this.#pending = this.#pending.subarray(this.#target.input(this.#pending));
    if (this.#ended) return;
    if (this.#isInteractive) {
      // A keyboard is always listened to: a guest that takes nothing must not disable the way out of it.
      this.#pending = this.#pending.subarray(0, TYPED_AHEAD_BYTES);
    } else if (this.#pending.length > 0) this.#source.pause();
    else this.#source.resume();
  }

  /** The end of a file or pipe: an unfinished line needs one EOT to be delivered, the end another. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    const marks = this.#lastByte === NEWLINE ? [END_OF_INPUT] : [END_OF_INPUT, END_OF_INPUT];
    this.#pending = Buffer.concat([this.#pending, Buffer.from(marks)]);
    this.#flush();
  }

  #withoutCommands(chunk: Uint8Array): Uint8Array {
    const kept: number[] = [];
    for (const byte of chunk) {
      if (this.#afterPrefix) {
        this.#afterPrefix = false;
        const key = String.fromCharCode(byte).toLowerCase();
        if (key === "x") this.#target.leave();
        else if (key === "z") this.#source.suspend?.();
        else if (key === "b") this.#target.inputBreak();
        else if (key === "p") this.#target.togglePause();
        else if (byte === PREFIX) kept.push(PREFIX);
      } else if (byte === PREFIX) this.#afterPrefix = true;
      else kept.push(byte);
    }
    return Uint8Array.from(kept);
  }
}
