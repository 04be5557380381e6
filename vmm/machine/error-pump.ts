// The command's standard error on its way to a host that takes it apart from standard output: neither waits for the
// other's reader.
import type { CommandChannel } from "../../devices/pseudo/command-channel.js";
import type { HostCallbacks } from "./host-callbacks.js";

/** More than this is written in a later turn of the event loop, which others need too. */
const PIECES_A_TURN = 16;
const STANDARD_ERROR = 2;

type ErrorHost = Pick<HostCallbacks, "commandError" | "takesCommandError" | "keepsCommandOutput" | "takesViews">;

export class ErrorPump {
  readonly #host: ErrorHost;
  readonly #command: CommandChannel;
  #isWriting = false;
  /** The host takes no more: what comes is dropped. */
  #isBroken = false;
  #waiters: (() => void)[] = [];
  #next: NodeJS.Immediate | undefined;

  constructor(host: ErrorHost, command: CommandChannel) {
    this.#host = host;
    this.#command = command;
  }

  /** Hands on what there is, unless the host is still busy with the piece before. */
  pump(): void {
    if (!this.#host.takesCommandError || this.#host.keepsCommandOutput) {
      this.giveUp();
      return;
    }
    for (let pieces = 0; !this.#isWriting; pieces++) {
      if (pieces === PIECES_A_TURN) {
        this.#next ??= setImmediate(() => {
          this.#next = undefined;
          this.pump();
        });
        return;
      }
      const bytes = this.#host.takesViews
        ? this.#command.viewOutput(STANDARD_ERROR)
        : this.#command.peekOutput(STANDARD_ERROR);
      if (bytes.length === 0) {
        this.giveUp();
        return;
      }
      this.#write(bytes);
    }
  }

  /** Resolves once all so far has been written. */
  written(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.pump();
    });
  }

  /** Ends all waits. */
  giveUp(): void {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  /** The host takes no more, for whatever reason: stop waiting for it. */
  breakOff(): void {
    this.#isBroken = true;
    this.#isWriting = false;
    this.giveUp();
  }

  /** The end: nothing more is written, and all waits end. */
  close(): void {
    this.breakOff();
    clearImmediate(this.#next);
  }

  #write(bytes: Uint8Array): void {
    if (this.#isBroken) {
      this.#command.consumeOutput(bytes.length, STANDARD_ERROR);
      return;
    }
    this.#isWriting = true;
    let isInside = true as boolean;
    let isDone = false as boolean;
    this.#host.commandError(bytes, () => {
      // Some hosts say it twice, or after they have failed.
      if (isDone || !this.#isWriting) return;
      isDone = true;
      this.#isWriting = false;
      this.#command.consumeOutput(bytes.length, STANDARD_ERROR);
      // Inside, the loop in `pump` goes on.
      if (!isInside) this.pump();
    });
    isInside = false;
  }
}
