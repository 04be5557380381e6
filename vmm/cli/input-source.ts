// A terminal as the source of a guest's input.
import type { InputSource } from "../host/file-input.js";
import { RawTerminal } from "../sys/terminal.js";

const STDIN = 0;

/** A terminal, raw while it is open and this process is in the foreground: every key is the guest's. */
export class TerminalInput implements InputSource {
  #isPaused = false;
  #isOpen = false;
  #take: (bytes: Uint8Array) => void = () => undefined;
  #end: () => void = () => undefined;
  readonly #terminal: RawTerminal;

  /** `rawOutput`: what is written to it comes from a terminal already. */
  constructor({ rawOutput = false } = {}) {
    this.#terminal = new RawTerminal(STDIN, {
      isOutputRaw: rawOutput,
      taken: () => {
        this.#listen();
      },
      lost: () => {
        if (this.#isOpen) process.stdin.pause();
      },
    });
  }

  open(take: (bytes: Uint8Array) => void, end: () => void): void {
    this.#take = take;
    this.#end = end;
    this.#terminal.open();
  }

  pause(): void {
    this.#isPaused = true;
    if (this.#isOpen) process.stdin.pause();
  }

  resume(): void {
    this.#isPaused = false;
    if (this.#isOpen && this.#terminal.isOurs) process.stdin.resume();
  }

  suspend(): void {
    this.#terminal.suspend();
  }

  close(): void {
    this.#terminal.close();
    if (this.#isOpen) process.stdin.removeAllListeners("data").pause();
  }

  /** Only once the terminal is ours: a process in the background that reads it is stopped. */
  #listen(): void {
    const { stdin } = process;
    if (!this.#isOpen) {
      this.#isOpen = true;
      stdin.on("data", this.#take);
      stdin.on("end", this.#end);
      stdin.on("error", this.#end);
    }
    if (this.#isPaused) stdin.pause();
    else stdin.resume();
  }
}
