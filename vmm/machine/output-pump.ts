// The guest's output on its way to the host, one piece at a time: out of the ring that vCPU threads
// fill, out of a virtio console, and out of the command's channel. A slow host holds up the guest, not this thread.
import type { CommandChannel, CommandOutput } from "../../devices/pseudo/command-channel.js";
import type { VmShared } from "../vcpu/shared.js";
import { ConsoleOutput } from "./console-output.js";
import type { ConsoleWatcher } from "./console-watcher.js";
import { ErrorPump } from "./error-pump.js";
import type { HostCallbacks } from "./host-callbacks.js";

/** How long output gathers after some has been written, `ms`. */
const GATHER_MS = 2;
/** More than this is written in a later turn of the event loop, which others need too. */
const PIECES_A_TURN = 16;
/** How long the last output of a VM that is to stop may take to be written, `ms`. */
const LAST_OUTPUT_MS = 2000;

interface CommandPiece {
  readonly bytes: Uint8Array;
  readonly output: CommandOutput;
}

const NOTHING: CommandPiece = { bytes: new Uint8Array(), output: 1 };

export interface OutputPumpOptions {
  readonly shared: VmShared;
  readonly host: Pick<
    HostCallbacks,
    | "output"
    | "commandOutput"
    | "takesCommandOutput"
    | "commandError"
    | "takesCommandError"
    | "keepsCommandOutput"
    | "takesViews"
  >;
  readonly watcher: ConsoleWatcher;
  readonly command: CommandChannel | undefined;
  /** The virtio console, which was told to wait, may go on. */
  readonly consoleReady: () => void;
  /** Has this thread call `pump` in a turn of its event loop, while it runs a vCPU. */
  readonly wakeOwner: () => void;
}

export class OutputPump {
  readonly #options: OutputPumpOptions;
  readonly #console = new ConsoleOutput();
  readonly #errors: ErrorPump | undefined;
  /** The virtio console waits until its output has been taken. */
  #isConsoleStopped = false;
  #isWriting = false;
  /** The host takes no more: what comes is dropped. */
  #isBroken = false;
  #waiters: (() => void)[] = [];
  #gathering: NodeJS.Timeout | undefined;
  #next: NodeJS.Immediate | undefined;
  #impatience: NodeJS.Timeout | undefined;
  #isImpatient = false;

  constructor(options: OutputPumpOptions) {
    this.#options = options;
    const { command, host } = options;
    if (command !== undefined) this.#errors = new ErrorPump(host, command);
  }

  /** The guest has to wait until the host has taken some. */
  get isHigh(): boolean {
    return this.#options.shared.outputIsHigh() || this.#isConsoleStopped;
  }

  /** Takes output of the virtio console; false if it should wait, until `consoleReady`. */
  takeFromConsole(bytes: Uint8Array): boolean {
    const { shared, wakeOwner } = this.#options;
    this.#console.push(bytes);
    this.#isConsoleStopped = this.#console.isHigh;
    // Inside the main thread's exit: what has been written is only seen in a turn of the event loop.
    if (shared.isMainInKvmRun) wakeOwner();
    else if (!shared.isGathering() || this.#isConsoleStopped) this.pump();
    return !this.#isConsoleStopped;
  }

  /** Hands on what there is, unless the host is still busy with the piece before. */
  pump(): void {
    this.#errors?.pump();
    // A host may be done at once, and that again and again, while the guest goes on writing.
    for (let pieces = 0; !this.#isWriting; pieces++) {
      if (pieces === PIECES_A_TURN) {
        this.#next ??= setImmediate(() => {
          this.#next = undefined;
          this.pump();
        });
        return;
      }
      if (!this.#writeOne()) return;
    }
  }

  /** Resolves once all output so far has been written. */
  written(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.pump();
    });
  }

  /** As `written`; but once `hurry` has been called, only for so long. */
  async flush(): Promise<void> {
    const written = this.written();
    const errorsWritten = this.#errors?.written();
    if (this.#isImpatient) this.#giveUp();
    await written;
    await errorsWritten;
  }

  /** The VM is to end: the last output may take LAST_OUTPUT_MS from now. */
  hurry(): void {
    this.#impatience ??= setTimeout(() => {
      this.#isImpatient = true;
      this.#giveUp();
    }, LAST_OUTPUT_MS).unref();
  }

  /** The host takes no more, for whatever reason: stop waiting for it. */
  breakOff(): void {
    this.#isBroken = true;
    this.#isWriting = false;
    this.#errors?.breakOff();
    this.#giveUp();
  }

  /** The end: nothing more is written, and all waits end. */
  close(): void {
    this.breakOff();
    this.#errors?.close();
    clearImmediate(this.#next);
    clearTimeout(this.#impatience);
    clearTimeout(this.#gathering);
  }

  #giveUp(): void {
    this.#endWaits();
    this.#errors?.giveUp();
  }

  #endWaits(): void {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  /** True if more is to be written at once. */
  #writeOne(): boolean {
    const { shared, host, watcher, command } = this.#options;
    const serial = shared.peekOutput();
    const terminal = serial.length > 0 ? serial : this.#console.take();
    const { bytes: channel, output } = terminal.length === 0 ? this.#peekCommand() : NOTHING;
    const bytes = terminal.length > 0 ? terminal : channel;
    if (bytes.length === 0) {
      this.#endWaits();
      return false;
    }
    watcher.see(terminal);
    const consume = (): void => {
      shared.consumeOutput(serial.length);
      command?.consumeOutput(channel.length, output);
    };
    if (this.#isBroken) {
      consume();
      return true;
    }
    this.#isWriting = true;
    const isConversation = channel.length > 0 && host.takesCommandOutput;
    // Who answers waits for each piece.
    if (!isConversation) this.#gather();
    let isInside = true as boolean;
    let isDone = false as boolean;
    const done = (): void => {
      // Some hosts say it twice, or after they have failed.
      if (isDone || !this.#isWriting) return;
      isDone = true;
      this.#isWriting = false;
      consume();
      this.#releaseConsole();
      // Inside, the loop in `pump` goes on.
      if (!isInside && this.#wantsMore()) this.pump();
    };
    if (isConversation) host.commandOutput(bytes, done);
    else host.output(bytes, done);
    isInside = false;
    return isDone && this.#wantsMore();
  }

  /** Of a host that does not take them apart, standard error comes behind what there is of standard output. */
  #peekCommand(): CommandPiece {
    const { host, command } = this.#options;
    if (command === undefined || host.keepsCommandOutput) return NOTHING;
    const peek = (output: CommandOutput): Uint8Array =>
      host.takesViews ? command.viewOutput(output) : command.peekOutput(output);
    const bytes = peek(1);
    if (bytes.length > 0 || host.takesCommandError) return { bytes, output: 1 };
    return { bytes: peek(2), output: 2 };
  }

  /** What has come meanwhile is to be written at once, not after some more has gathered. */
  #wantsMore(): boolean {
    const { shared, command } = this.#options;
    if (!shared.isGathering() || shared.outputIsHigh() || this.#console.isHigh || this.#waiters.length > 0) return true;
    return command?.hasMuch(1) === true || command?.hasMuch(2) === true;
  }

  #releaseConsole(): void {
    if (!this.#isConsoleStopped || this.#console.isHigh || this.#isBroken) return;
    this.#isConsoleStopped = false;
    this.#options.consoleReady();
  }

  /**
   * After some output, more is likely: for a moment the guest's threads do not wake this one for
   * each piece. A wake-up for each line would cost more than the line.
   */
  #gather(): void {
    const { shared } = this.#options;
    if (shared.isGathering() || shared.isMainInKvmRun) return;
    shared.setGathering(true);
    this.#gathering = setTimeout(() => {
      shared.setGathering(false);
      this.pump();
    }, GATHER_MS);
  }
}
