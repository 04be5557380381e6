// A command in the lab: what it is started with, and what comes back of it. It is one of the agent's, or the vmlet that waits in a
// saved state becomes it.
import { GuestCommand, type CommandEvents, type ExitStatus } from "../agent/command.js";
import type { AgentConnection } from "../agent/connection.js";
import type { GuestBytes } from "../agent/guest-bytes.js";
import { ExecError } from "../errors.js";
import { InputQueue } from "./input-queue.js";
import { encodeWork, type Work } from "./work.js";

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface LabCommand {
  readonly argv: readonly (string | Uint8Array)[];
  /** `argv` is what follows `vmlet`, of this package: the one that waits in a saved state takes it. */
  readonly isVmlet?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly terminal?: TerminalSize | undefined;
  /** All of standard input; without it the caller writes with `input` and `endInput`. */
  readonly stdin?: string | Uint8Array;
  /** More comes, a window later, once what it returns has resolved. */
  readonly onOutput?: (bytes: Buffer, stream: "stdout" | "stderr") => void | Promise<void>;
}

export interface LabResult {
  /** Exit status, or 128 + signal. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Files that the command left in /output. */
  readonly files: ReadonlyMap<string, Buffer>;
}

/** What is the same of all commands in a lab. */
export interface CommandPlace {
  readonly agent: AgentConnection;
  readonly env: Readonly<Record<string, string>>;
  /** The vmlet that waits, for the one command that it will be. */
  readonly waiting: WaitingVmlet | undefined;
}

/** A vmlet that was started before the machine was saved. */
export class WaitingVmlet {
  readonly command: GuestCommand;
  /** Whoever it becomes. */
  events: CommandEvents | undefined;
  /** It waits no more. */
  hasEnded = false;

  /** `stream`: the agent's, on which it was started. */
  constructor(agent: AgentConnection, stream: number) {
    this.command = new GuestCommand(
      agent,
      ["vmlet"],
      {},
      {
        onOutput: (output, bytes) => {
          if (this.events === undefined) this.command.consumed(output, bytes.length);
          else this.events.onOutput(output, bytes);
        },
        onWritable: () => this.events?.onWritable?.(),
        onInputClosed: () => this.events?.onInputClosed?.(),
        onExit: (status) => {
          this.hasEnded = true;
          this.events?.onExit(status);
        },
        onFailed: (error) => {
          this.hasEnded = true;
          this.events?.onFailed(error);
        },
      },
      stream,
      true,
    );
  }
}

/** Holds a terminal for the waiting vmlet, whose own streams are pipes: says its name, and then nothing any more. */
const TERMINAL_HOLDER = 'trap "" HUP INT QUIT TERM TSTP; tty; exec sleep 1000000000';
const SIGKILL = 9;

/** One that runs, or will. */
export class RunningCommand {
  /** Rejects with ConfigError, and with AgentError for a lab that has ended. */
  readonly exit: Promise<number>;
  readonly input = new InputQueue();
  readonly #given: LabCommand;
  readonly #place: CommandPlace;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  #process: GuestCommand | undefined;
  /** Where the terminal is, if there is one. */
  #terminal: GuestCommand | undefined;
  #resolve: (status: number) => void = () => undefined;
  #reject: (error: Error) => void = () => undefined;

  /** Throws ConfigError for a command that is too long. */
  constructor(given: LabCommand, place: CommandPlace, program: readonly (string | Uint8Array)[]) {
    this.#given = given;
    this.#place = place;
    this.exit = new Promise<number>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    }).finally(() => {
      this.input.clear();
    });
    this.exit.catch(() => undefined);
    const { waiting } = place;
    if (waiting === undefined) this.#exec(program);
    else this.#become(waiting);
    if (given.stdin !== undefined) {
      this.input.push(Buffer.from(given.stdin));
      this.input.end();
    }
  }

  get output(): Pick<LabResult, "stdout" | "stderr"> {
    return { stdout: Buffer.concat(this.#stdout), stderr: Buffer.concat(this.#stderr) };
  }

  signal(number: number): void {
    // As a shell: what is on a terminal hears of the keys by that.
    this.#process?.kill(number, this.#given.terminal === undefined);
  }

  resize(rows: number, columns: number): void {
    this.#terminal?.resize(rows, columns);
  }

  #exec(program: readonly (string | Uint8Array)[]): void {
    const { cwd = "/", terminal } = this.#given;
    const argv = program.map((word): GuestBytes => (typeof word === "string" ? word : Buffer.from(word)));
    const options = { env: this.#place.env, cleanEnv: true, cwd, ...(terminal === undefined ? {} : { terminal }) };
    const command: GuestCommand = new GuestCommand(this.#place.agent, argv, options, {
      ...this.#events(() => command),
      onExit: (status) => {
        this.#resolve(status.exitCode);
      },
    });
    this.#process = command;
    if (terminal !== undefined) this.#terminal = command;
    this.input.connect(command);
  }

  #become(waiting: WaitingVmlet): void {
    const { terminal } = this.#given;
    const { command } = waiting;
    this.#process = command;
    waiting.events = {
      ...this.#events(() => command),
      onExit: (status) => {
        this.#resolve(status.exitCode);
      },
    };
    if (terminal === undefined) {
      this.input.push(encodeWork(this.#work(undefined)));
      this.input.connect(command);
      return;
    }
    this.#holdTerminal(waiting, terminal);
  }

  /** It becomes the command once it has a terminal; its output is that of who holds it, up to the last byte. */
  #holdTerminal(waiting: WaitingVmlet, terminal: TerminalSize): void {
    const { agent, env } = this.#place;
    const own = this.#events(() => holder);
    const work = new InputQueue();
    work.connect(waiting.command);
    let name = "";
    let isNamed = false;
    let end: ExitStatus | undefined;
    const holder: GuestCommand = new GuestCommand(
      agent,
      ["sh", "-c", TERMINAL_HOLDER],
      { env, cleanEnv: true, cwd: "/", terminal },
      {
        ...own,
        onOutput: (output, bytes) => {
          if (isNamed) {
            own.onOutput(output, bytes);
            return;
          }
          holder.consumed(output, bytes.length);
          name += bytes.toString("latin1");
          const at = name.indexOf("\n");
          if (at < 0) return;
          isNamed = true;
          work.push(encodeWork(this.#work(name.slice(0, at).trim())));
          this.input.connect(holder);
        },
        onExit: (status) => {
          this.#resolve((end ?? status).exitCode);
        },
      },
    );
    this.#terminal = holder;
    waiting.events = {
      ...this.#events(() => waiting.command),
      onWritable: () => {
        work.resume();
      },
      onExit: (status) => {
        end = status;
        holder.kill(SIGKILL);
      },
    };
  }

  #work(terminal: string | undefined): Work {
    const { argv, cwd = "/" } = this.#given;
    return { argv: argv.map((word) => Buffer.from(word).toString("utf8")), env: this.#place.env, cwd, terminal };
  }

  #events(command: () => GuestCommand): Omit<CommandEvents, "onExit"> {
    return {
      onOutput: (output, bytes) => {
        const taken = this.#take(output === 1 ? "stdout" : "stderr", bytes);
        const consumed = (): void => {
          command().consumed(output, bytes.length);
        };
        if (taken instanceof Promise) void taken.then(consumed, consumed);
        else consumed();
      },
      onWritable: () => {
        this.input.resume();
      },
      onInputClosed: () => {
        this.input.resume();
      },
      onFailed: (error) => {
        if (error instanceof ExecError) {
          void this.#take("stderr", Buffer.from(`lab: ${error.message}\n`));
          this.#resolve(error.exitCode);
        } else this.#reject(error);
      },
    };
  }

  #take(stream: "stdout" | "stderr", bytes: Buffer): void | Promise<void> {
    const { onOutput } = this.#given;
    if (onOutput !== undefined) return onOutput(bytes, stream);
    (stream === "stdout" ? this.#stdout : this.#stderr).push(Buffer.from(bytes));
  }
}
