// The program that a VM is started for, whoever looks at it: a terminal of this process, a log, others that attach.
import { GuestCommand, type ExitStatus } from "../agent/command.js";
import type { CommandOptions } from "../agent/exec-request.js";
import type { AgentConnection } from "../agent/connection.js";
import type { TerminalSize } from "../machine/arguments.js";
import type { CommandSpec } from "./command-spec.js";

export interface MainSinks {
  /** Calls `done` once it has been taken; the program waits for that, a window later. */
  output(output: 1 | 2, bytes: Buffer, done: () => void): void;
  /** It takes input again, or reads none any more. */
  inputRoom(): void;
}

export interface MainOptions {
  readonly size?: TerminalSize | undefined;
  /** It stops before its first instruction, and goes on behind a snapshot. */
  readonly holds?: boolean | undefined;
  /** Stream of the agent's on which a snapshot holds it. */
  readonly heldOn?: number | undefined;
  /** Its working directory is not made if it is not there. */
  readonly needsFolder?: boolean | undefined;
}

export function commandOptions(
  { env, workingDirectory, user, groups, limits, hasTerminal, isInteractive }: CommandSpec,
  size: TerminalSize | undefined,
): CommandOptions {
  return {
    env,
    cwd: workingDirectory,
    makeCwd: true,
    user,
    ...(groups === undefined ? {} : { groups }),
    ...(limits === undefined ? {} : { limits }),
    ...(hasTerminal ? { terminal: size ?? true } : {}),
    noInput: !isInteractive,
  };
}

export class MainProgram {
  /** Resolves once it has begun. Rejects with ExecError if it cannot, with AgentError if the guest has gone. */
  readonly started: Promise<void>;
  /** Rejects as `started`. */
  readonly exit: Promise<ExitStatus>;
  readonly #command: GuestCommand;

  constructor(
    agent: AgentConnection,
    spec: CommandSpec,
    sinks: MainSinks,
    { size, holds = false, heldOn, needsFolder = false }: MainOptions = {},
  ) {
    let isStarted = (): void => undefined;
    let hasEnded: (status: ExitStatus) => void = () => undefined;
    let hasFailed: (error: unknown) => void = () => undefined;
    const exit = new Promise<ExitStatus>((resolve, reject) => {
      hasEnded = resolve;
      hasFailed = reject;
    });
    this.exit = exit;
    this.started = Promise.race([new Promise<void>((resolve) => (isStarted = resolve)), exit.then(() => undefined)]);
    for (const promise of [this.exit, this.started]) promise.catch(() => undefined);
    const command: GuestCommand = new GuestCommand(
      agent,
      spec.argv,
      { ...commandOptions(spec, size), hold: holds, ...(needsFolder ? { makeCwd: false } : {}) },
      {
        onStarted: () => {
          isStarted();
        },
        onOutput: (output, bytes) => {
          sinks.output(output, bytes, () => {
            command.consumed(output, bytes.length);
          });
        },
        onWritable: () => {
          sinks.inputRoom();
        },
        onInputClosed: () => {
          sinks.inputRoom();
        },
        onExit: (status) => {
          hasEnded(status);
        },
        onFailed: (error) => {
          hasFailed(error);
        },
      },
      heldOn,
    );
    this.#command = command;
  }

  /** How many of the bytes have been taken; after fewer than all, `inputRoom` is called. */
  input(bytes: Uint8Array): number {
    return this.#command.write(bytes);
  }

  endInput(): void {
    this.#command.end();
  }

  resize(rows: number, columns: number): void {
    this.#command.resize(rows, columns);
  }

  signal(number: number): void {
    this.#command.kill(number);
  }
}
