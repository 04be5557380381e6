// A program of the guest's at this process's standard streams, as an engine has made them: FIFOs, pipes, or a terminal of which it
// has the other end.
import { fstatSync } from "node:fs";
import { GuestCommand, type ExitStatus } from "../agent/command.js";
import type { AgentConnection } from "../agent/connection.js";
import { CommandInput } from "../host/command-input.js";
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { OutputQueue, OutputWriter } from "../host/standard-output.js";
import { onEndSignals } from "../sys/end-signals.js";
import { takeTerminal } from "../sys/pseudo-terminal.js";
import { windowSize } from "../sys/terminal.js";
import { processOptions, type ProcessSurroundings } from "./process-options.js";
import type { OciProcess } from "./runtime-spec.js";

const STDIN = 0;
const SIGHUP = 1;
const SIGKILL = 9;
const SIGPIPE = 13;
const NULL_DEVICE = (1 << 8) | 3;

type StandardSurroundings = Omit<ProcessSurroundings, "size" | "noInput"> & {
  /** Stream on which the agent holds it, until `begin`. */
  readonly heldOn?: number | undefined;
  /** Called when all that it needs is open, before it is asked for. */
  readonly seal?: (() => void) | undefined;
};

export class StandardProgram {
  /** Resolves with its number in the guest. Rejects with ExecError if it cannot begin, with AgentError if the guest has gone. */
  readonly started: Promise<number>;
  /** Its end, once all that it has written has been taken. Rejects as `started`. */
  readonly ended: Promise<ExitStatus>;
  readonly #command: GuestCommand;
  readonly #outputs = { 1: this.#queue(1), 2: this.#queue(2) };

  constructor(agent: AgentConnection, process: OciProcess, around: StandardSurroundings) {
    const hasTerminal = process.terminal === true;
    let begun: (pid: number) => void = () => undefined;
    let done: (status: ExitStatus) => void = () => undefined;
    let failed: (error: unknown) => void = () => undefined;
    const exit = new Promise<ExitStatus>((resolve, reject) => {
      done = resolve;
      failed = reject;
    });
    around.seal?.();
    this.started = Promise.race([new Promise<number>((resolve) => (begun = resolve)), exit.then(() => 0)]);
    const command: GuestCommand = new GuestCommand(
      agent,
      process.args,
      processOptions(process, { ...around, size: hasTerminal ? sizeOf(process) : undefined, noInput: isNullInput() }),
      {
        onStarted: (pid) => {
          begun(pid);
        },
        onOutput: (output, bytes) => {
          this.#outputs[output].push(bytes, () => {
            command.consumed(output, bytes.length);
          });
        },
        onInputClosed: () => {
          input?.resume();
        },
        onWritable: () => {
          input?.resume();
        },
        onExit: (status) => {
          done(status);
        },
        onFailed: (error) => {
          failed(error);
        },
      },
      around.heldOn,
    );
    this.#command = command;
    let input: CommandInput | undefined;
    const releases: (() => void)[] = [];
    void this.started.then(
      () => {
        input = hasTerminal || !isNullInput() ? this.#openInput(hasTerminal) : undefined;
        releases.push(
          onEndSignals((number) => {
            this.signal(number);
          }),
        );
        if (hasTerminal) releases.push(this.#followSize());
      },
      () => undefined,
    );
    this.ended = exit.then(async (status) => {
      input?.close();
      for (const release of releases) release();
      await Promise.all([this.#outputs[1].drained(), this.#outputs[2].drained()]);
      return status;
    });
    for (const promise of [this.started, this.ended]) promise.catch(() => undefined);
  }

  /** For one that is held. */
  begin(): void {
    this.#command.begin();
  }

  /** Calls back with its exit code; one that went with its VM has been killed. */
  onEnd(end: (exitCode: number) => void): void {
    this.ended.then(
      ({ exitCode }) => {
        end(exitCode);
      },
      () => {
        end(EXIT_SIGNAL_BASE + SIGKILL);
      },
    );
  }

  signal(number: number): void {
    this.#command.kill(number);
  }

  #openInput(hasTerminal: boolean): CommandInput {
    const input = new CommandInput({
      commandInput: (bytes) => this.#command.write(bytes),
      endCommandInput: () => {
        // Nobody has the other end of the terminal any more.
        if (hasTerminal) this.signal(SIGHUP);
        else this.#command.end();
      },
    });
    input.open();
    return input;
  }

  #followSize(): () => void {
    const changed = (): void => {
      const size = windowSize(STDIN);
      if (size !== undefined && size.rows > 0) this.#command.resize(size.rows, size.columns);
    };
    process.on("SIGWINCH", changed);
    // It may have changed since the request.
    changed();
    return () => process.off("SIGWINCH", changed);
  }

  #queue(fd: 1 | 2): OutputQueue {
    return new OutputQueue(
      new OutputWriter(fd, {
        vanished: () => {
          this.signal(SIGPIPE);
        },
        failed: () => undefined,
      }),
    );
  }
}

/** Signals of the terminal come to this process from here on. */
export function holdTerminal(): void {
  try {
    takeTerminal(STDIN);
  } catch {
    // It is another session's, as at an ordinary shell.
  }
}

function sizeOf({ consoleSize }: OciProcess): { rows: number; columns: number } | undefined {
  if (consoleSize !== undefined && consoleSize.height > 0) {
    return { rows: consoleSize.height, columns: consoleSize.width };
  }
  const size = windowSize(STDIN);
  return size === undefined || size.rows === 0 ? undefined : size;
}

export function isNullInput(): boolean {
  try {
    const stat = fstatSync(STDIN);
    return stat.isCharacterDevice() && stat.rdev === NULL_DEVICE;
  } catch {
    return true;
  }
}
