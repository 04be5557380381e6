// Standard input of a command that runs without a terminal: every byte as it is, to the command's own pipe. A
// terminal whose output goes elsewhere keeps its line editing and its keys, as with `docker run -i` or ssh.
import { FileInput, type InputSource } from "./file-input.js";

export interface CommandTarget {
  /** Takes bytes for the command; the count that it has taken. */
  commandInput(bytes: Uint8Array): number;
  endCommandInput(): void;
}

export class CommandInput {
  readonly #source: InputSource;
  readonly #target: CommandTarget;
  #pending: Uint8Array = new Uint8Array();
  #hasEnded = false;

  constructor(target: CommandTarget, source: InputSource = new FileInput()) {
    this.#source = source;
    this.#target = target;
  }

  open(): void {
    this.#source.open(
      (bytes) => {
        this.#pending = bytes;
        this.resume();
      },
      () => {
        this.#hasEnded = true;
        this.resume();
      },
    );
  }

  /** The command has room again. */
  resume(): void {
    this.#pending = this.#pending.subarray(this.#target.commandInput(this.#pending));
    if (this.#pending.length > 0) this.#source.pause();
    else if (this.#hasEnded) this.#target.endCommandInput();
    else this.#source.resume();
  }

  close(): void {
    this.#source.close();
  }
}
