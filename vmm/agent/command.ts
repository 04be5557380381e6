// A command of the guest without streams of Node's: callbacks, and windows that the caller turns. exec.ts and run.ts are made of it.
import { AgentError, type ExecError } from "../errors.js";
import type { AgentConnection } from "./connection.js";
import { encodeExec, encodeSize, outputsOf, type CommandOptions } from "./exec-request.js";
import { EXEC, RESIZE, SIGNAL } from "./frames.js";
import { shown, type GuestBytes } from "./guest-bytes.js";
import { startError } from "./guest-errors.js";
import { MAX_SIGNAL, signalName, signalNumber } from "./signals.js";
import type { AgentStream, Output } from "./stream.js";

/** How a command ended. */
export interface ExitStatus {
  /** 128 + N if signal N ended it, as a shell and Docker have it. */
  readonly exitCode: number;
  /** Name of the signal that ended it, or null. */
  readonly signal: string | null;
}

/** Exactly one of onExit and onFailed is called, and nothing after it. */
export interface CommandEvents {
  onStarted?(pid: number): void;
  /** Counts against the window until `consumed` is told. 1: standard output, 2: standard error. */
  onOutput(output: Output, bytes: Buffer): void;
  onOutputEnd?(output: Output): void;
  /** Nobody reads the standard input any more: what is written is dropped. */
  onInputClosed?(): void;
  /** After a `write` that did not take all. */
  onWritable?(): void;
  onExit(status: ExitStatus): void;
  /** It did not start (ExecError), or the connection is over. */
  onFailed(error: ExecError | AgentError): void;
}

const SIGNAL_BASE = 128;
const DONE_BYTES = 12;
const MAX_EXIT_CODE = 255;

export class GuestCommand {
  readonly stream: AgentStream;
  /** Signals for a program that is to be held, until it has begun: they must not be in its snapshot. */
  #held: Buffer[] | undefined;

  /** Throws ConfigError for options that make no sense. */
  constructor(
    connection: AgentConnection,
    command: readonly GuestBytes[],
    options: CommandOptions,
    events: CommandEvents,
    /** Number of the stream on which the agent holds the command already. */
    heldOn?: number,
    /** That one has begun before. */
    hasBegun = false,
  ) {
    let isStarted = hasBegun;
    if (options.hold === true && heldOn === undefined) this.#held = [];
    const what = `run ${shown(command[0] ?? "")}`;
    const request = {
      type: EXEC,
      payload: encodeExec(command, options),
      what,
      outputs: outputsOf(options),
      hasInput: options.noInput !== true,
      isCommand: true,
    } as const;
    const streamEvents = {
      onStarted: (pid: number) => {
        isStarted = true;
        const held = this.#held ?? [];
        this.#held = undefined;
        for (const payload of held) this.stream.control(SIGNAL, payload);
        events.onStarted?.(pid);
      },
      onData: (output: Output, bytes: Buffer) => {
        events.onOutput(output, bytes);
      },
      onEnd: (output: Output) => events.onOutputEnd?.(output),
      onClosed: () => events.onInputClosed?.(),
      onWritable: () => events.onWritable?.(),
      onDone: (payload: Buffer) => {
        events.onExit(decodeExit(payload, what));
      },
      onRefused: (errno: number, text: string) => {
        events.onFailed(
          isStarted
            ? new AgentError("gone", `${what}: the guest no longer knows the command: ${text}`)
            : startError(command, errno, text),
        );
      },
      onLost: (error: AgentError) => {
        events.onFailed(error);
      },
    };
    this.stream =
      heldOn === undefined
        ? connection.open(request, streamEvents)
        : connection.takeUp(heldOn, request, streamEvents, hasBegun);
  }

  /** How many of `bytes` have been sent to its standard input; after fewer than all, onWritable comes. */
  write(bytes: Uint8Array): number {
    return this.stream.write(bytes);
  }

  /** Ends its standard input. */
  end(): void {
    this.stream.end();
  }

  /** What onOutput has brought has been taken. */
  consumed(output: Output, count: number): void {
    this.stream.consumed(output, count);
  }

  /** To the process, or to its process group: one that has not begun yet ends with it. Nothing happens after its end. Throws ConfigError. */
  kill(signal: string | number = "SIGTERM", toGroup = false): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt8(signalNumber(signal), 0);
    payload.writeUInt8(toGroup ? 1 : 0, 1);
    if (this.#held !== undefined) this.#held.push(payload);
    else this.stream.control(SIGNAL, payload);
  }

  /** Begins a program that is held until it is told to go on. */
  begin(): void {
    this.stream.control(SIGNAL, Buffer.alloc(4));
  }

  /** Of its terminal. Throws ConfigError. */
  resize(rows: number, columns: number): void {
    this.stream.control(RESIZE, encodeSize(rows, columns));
  }

  /** Kills it with all that belongs to it; onExit or onFailed follows. */
  cancel(): void {
    this.stream.cancel();
  }
}

function decodeExit(payload: Buffer, what: string): ExitStatus {
  const [code = 0, signal = 0, zero = 0] =
    payload.length === DONE_BYTES ? new Uint32Array(Uint8Array.from(payload).buffer) : [-1];
  if (code < 0 || code > MAX_EXIT_CODE || signal > MAX_SIGNAL || zero !== 0) {
    throw new AgentError("protocol", `The guest's agent has sent an end of a command that is none: ${what}`);
  }
  return signal === 0
    ? { exitCode: code, signal: null }
    : { exitCode: SIGNAL_BASE + signal, signal: signalName(signal) };
}
