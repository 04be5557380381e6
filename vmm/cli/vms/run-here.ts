// A VM in this process, its program at this process's standard streams.
import type { AgentConnection } from "../../agent/connection.js";
import { ExecError } from "../../errors.js";
import { EXIT_SIGNAL_BASE } from "../../host/exit-codes.js";
import type { OutputQueue } from "../../host/standard-output.js";
import { say } from "../../host/say.js";
import { MainProgram } from "../../sdk/main-program.js";
import { VmOwner } from "../../sdk/vm-owner.js";
import type { ProgramStart } from "../../sdk/program-start.js";
import type { VmSpec } from "../../sdk/vm-spec.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { CommandInput } from "../../host/command-input.js";
import { exitCodeOfStart } from "./exit-code-of-start.js";
import { PATIENCE } from "./patience.js";
import { programOutput } from "./program-output.js";
import { bootText, type WorkProgress } from "./work-progress.js";

/** As timeout(1). */
const EXIT_TIMEOUT = 124;
const SIGPIPE = 13;
/** Others may use a VM that has run for so long; a short program need not wait for what that takes, `ms`. */
const OPEN_AFTER_MS = 200;

/** The result is the process's exit code. */
export async function runHere(spec: VmSpec, progress: WorkProgress): Promise<number> {
  const signals = new SignalRelay();
  const run = new ProgramRun(spec, signals, progress);
  try {
    const owner = await VmOwner.start(spec, {
      hasLog: false,
      hearsOwner: spec.main?.isInteractive === true || spec.timeoutMs > 0,
      signal: signals.abort.signal,
      log: say,
      boots: () => {
        progress.show(bootText(spec));
      },
      begin: (agent, start) => {
        run.begin(agent, start);
      },
    });
    let exitCode = EXIT_SIGNAL_BASE;
    try {
      exitCode = await run.toEnd(owner);
    } finally {
      await owner.end(exitCode);
    }
    return exitCode;
  } catch (error) {
    // Its end is what was asked for.
    if (signals.first !== undefined && !(error instanceof ExecError)) return EXIT_SIGNAL_BASE + signals.first;
    throw error;
  } finally {
    signals.close();
  }
}

/** The program and this process's standard streams. */
class ProgramRun {
  readonly #spec: VmSpec;
  readonly #signals: SignalRelay;
  readonly #progress: WorkProgress;
  readonly #outputs = { 1: this.#queue(1), 2: this.#queue(2) };
  #owner: VmOwner | undefined;
  #program: MainProgram | undefined;
  #input: CommandInput | undefined;

  constructor(spec: VmSpec, signals: SignalRelay, progress: WorkProgress) {
    this.#spec = spec;
    this.#signals = signals;
    this.#progress = progress;
  }

  begin(agent: AgentConnection, start: ProgramStart): void {
    const { main } = this.#spec;
    if (main === undefined) throw new Error("There is no program to run");
    this.#program = new MainProgram(
      agent,
      main,
      {
        output: (output, bytes, done) => {
          this.#progress.done();
          this.#outputs[output].push(bytes, () => {
            const attached = this.#owner?.attached;
            if (attached === undefined) done();
            else attached.output(output, bytes, done);
          });
        },
        inputRoom: () => this.#input?.resume(),
      },
      start,
    );
    // What comes for a program that is being kept must not be in its snapshot.
    if (main.isInteractive && !start.holds) this.#openInput(this.#program);
  }

  async toEnd(owner: VmOwner): Promise<number> {
    this.#owner = owner;
    const program = this.#program;
    if (program === undefined) throw new Error("The program has not begun");
    this.#signals.handTo(program, () => {
      owner.workload.vm.stop();
    });
    const timers: NodeJS.Timeout[] = [];
    const after = <Result>(ms: number, result: Result): Promise<Result> =>
      new Promise((resolve) => timers.push(setTimeout(resolve, ms, result)));
    try {
      await program.started;
      this.#progress.done();
      if (this.#spec.main?.isInteractive === true) this.#openInput(program);
      const { timeoutMs } = this.#spec;
      const over = timeoutMs > 0 ? after(timeoutMs, undefined) : new Promise<never>(() => undefined);
      const opened = after(OPEN_AFTER_MS, undefined).then(() => open(owner, program));
      // A program that has ended by then needs no sockets.
      const failed = opened.then(() => new Promise<never>(() => undefined));
      const status = await Promise.race([program.exit, over, failed]);
      if (status === undefined) say(`its time of ${String(timeoutMs / 1000)} s is over: the VM is ended`);
      await Promise.all([this.#outputs[1].drained(), this.#outputs[2].drained()]);
      return status?.exitCode ?? EXIT_TIMEOUT;
    } catch (error) {
      if (!(error instanceof ExecError)) throw error;
      say(error.message);
      return exitCodeOfStart(error);
    } finally {
      for (const timer of timers) clearTimeout(timer);
      this.#input?.close();
    }
  }

  #openInput(program: MainProgram): void {
    if (this.#input !== undefined) return;
    this.#input = new CommandInput({
      commandInput: (bytes) => program.input(bytes),
      endCommandInput: () => {
        program.endInput();
      },
    });
    this.#input.open();
  }

  #queue(fd: 1 | 2): OutputQueue {
    return programOutput(fd, () => this.#program?.signal(SIGPIPE));
  }
}

async function open(owner: VmOwner, program: MainProgram): Promise<void> {
  owner.listen(
    {
      // Its standard input is this process's.
      input: (bytes) => bytes.length,
      endInput: () => undefined,
      resize: () => undefined,
      signal: (number) => {
        program.signal(number);
      },
    },
    { hasOtherReaders: true },
  );
  await owner.open();
}

/** Signals of this process: they end a start, go to the program that runs, and end the VM of one that does not listen. */
class SignalRelay {
  readonly abort = new AbortController();
  first: number | undefined;
  #count = 0;
  #program: Pick<MainProgram, "signal"> | undefined;
  #stop: () => void = () => undefined;
  /** Too late to end the start, and too early for the program. */
  readonly #early: number[] = [];
  readonly close = onEndSignals((number) => {
    this.first ??= number;
    if (this.#program !== undefined) {
      this.#handOn(this.#program, number);
      return;
    }
    this.#early.push(number);
    this.abort.abort(new Error(`ended by signal ${String(number)}`));
  });

  handTo(program: Pick<MainProgram, "signal">, stop: () => void): void {
    this.#program = program;
    this.#stop = stop;
    for (const number of this.#early.splice(0)) this.#handOn(program, number);
  }

  #handOn(program: Pick<MainProgram, "signal">, number: number): void {
    if (++this.#count > PATIENCE) this.#stop();
    else program.signal(number);
  }
}
