// A VM in this process, its program at this process's standard streams.
import { ExecError } from "../../errors.js";
import { EXIT_SIGNAL_BASE } from "../../host/exit-codes.js";
import { OutputQueue, OutputWriter } from "../../host/standard-output.js";
import { say } from "../../host/say.js";
import { MainProgram } from "../../sdk/main-program.js";
import { VmOwner } from "../../sdk/vm-owner.js";
import type { CommandSpec, VmSpec } from "../../sdk/vm-spec.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { CommandInput } from "../command-input.js";
import type { WorkProgress } from "./work-progress.js";

const STREAMS = { 1: "standard output", 2: "standard error" } as const;
/** As timeout(1). */
const EXIT_TIMEOUT = 124;
const SIGPIPE = 13;
/** So often a signal is handed on to a program; the next one ends the VM. */
const PATIENCE = 2;

/** The result is the process's exit code. */
export async function runHere(spec: VmSpec, progress: WorkProgress): Promise<number> {
  const signals = new SignalRelay();
  try {
    const owner = await VmOwner.start(spec, {
      hasLog: false,
      signal: signals.abort.signal,
      log: say,
      boots: () => {
        progress.show("no guest of this kind has been started yet: it boots, once");
      },
    });
    let exitCode = EXIT_SIGNAL_BASE;
    try {
      exitCode = await runProgram(spec, owner, signals, progress);
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

async function runProgram(spec: VmSpec, owner: VmOwner, signals: SignalRelay, progress: WorkProgress): Promise<number> {
  const outputs = { 1: queue(1, () => program.signal(SIGPIPE)), 2: queue(2, () => program.signal(SIGPIPE)) };
  let input: CommandInput | undefined;
  const program: MainProgram = new MainProgram(
    owner.workload.agent,
    spec.main as CommandSpec,
    {
      output: (output, bytes, done) => {
        progress.done();
        outputs[output].push(bytes, () => {
          if (owner.attached === undefined) done();
          else owner.attached.output(output, bytes, done);
        });
      },
      inputRoom: () => input?.resume(),
    },
    undefined,
  );
  signals.handTo(program, () => {
    owner.workload.vm.stop();
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    if (spec.main?.isInteractive === true) {
      input = new CommandInput({
        commandInput: (bytes) => program.input(bytes),
        endCommandInput: () => {
          program.endInput();
        },
      });
      input.open();
    }
    await program.started;
    progress.done();
    // Others may use it while it runs.
    await Promise.race([program.exit, open(owner, program)]);
    const over = new Promise<undefined>((resolve) => {
      if (spec.timeoutMs > 0) {
        timer = setTimeout(() => {
          resolve(undefined);
        }, spec.timeoutMs);
      }
    });
    const status = await Promise.race([program.exit, over]);
    if (status === undefined) say(`its time of ${String(spec.timeoutMs / 1000)} s is over: the VM is ended`);
    await Promise.all([outputs[1].drained(), outputs[2].drained()]);
    return status?.exitCode ?? EXIT_TIMEOUT;
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    say(error.message);
    return error.exitCode;
  } finally {
    clearTimeout(timer);
    input?.close();
  }
}

async function open(owner: VmOwner, program: MainProgram): Promise<void> {
  owner.listen({
    // Its standard input is this process's.
    input: (bytes) => bytes.length,
    endInput: () => undefined,
    resize: () => undefined,
    signal: (number) => {
      program.signal(number);
    },
  });
  await owner.open();
}

function queue(fd: 1 | 2, vanished: () => void): OutputQueue {
  return new OutputQueue(
    new OutputWriter(fd, {
      vanished,
      failed: (why) => {
        say(`${STREAMS[fd]}: ${why}: what the program writes is lost`);
      },
    }),
  );
}

/** Signals of this process: they end a start, go to the program that runs, and end the VM of one that does not listen. */
class SignalRelay {
  readonly abort = new AbortController();
  first: number | undefined;
  #count = 0;
  #program: Pick<MainProgram, "signal"> | undefined;
  #stop: () => void = () => undefined;
  readonly close = onEndSignals((number) => {
    this.first ??= number;
    if (this.#program === undefined) this.abort.abort(new Error(`ended by signal ${String(number)}`));
    else if (++this.#count > PATIENCE) this.#stop();
    else this.#program.signal(number);
  });

  handTo(program: Pick<MainProgram, "signal">, stop: () => void): void {
    this.#program = program;
    this.#stop = stop;
  }
}
