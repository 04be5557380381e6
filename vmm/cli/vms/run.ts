// `vmlet run`: a program in a VM of its own, as `docker run` has it.
import { existsSync, writeFileSync } from "node:fs";
import { ExecError, HostError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { EXIT_SIGNAL_BASE } from "../../host/exit-codes.js";
import { print, say } from "../../host/say.js";
import { refuseInLab } from "../../sdk/in-lab.js";
import { planVm } from "../../sdk/plan.js";
import { stateFolder } from "../../sdk/state-folder.js";
import { checkVmOptions } from "../../sdk/vm-options.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { isTerminal } from "../../sys/files.js";
import { chooseOrExplain, sayWhyLab } from "../accelerator.js";
import { UsageError } from "../usage-error.js";
import { exitCodeOfStart } from "./exit-code-of-start.js";
import { parseRun, type RunOptions } from "./run-arguments.js";
import { WorkProgress } from "./work-progress.js";

const STDIN = 0;

export async function run(argv: readonly string[]): Promise<number> {
  const options = parseRun(argv);
  if (options.help) {
    const { RUN_HELP } = await import("./help.js");
    print(RUN_HELP);
    return 0;
  }
  const checked = checkVmOptions(options.vm);
  refuseWithoutTerminal(options);
  if (options.idFile !== undefined && existsSync(options.idFile)) throw idFileError(options.idFile, "EEXIST");
  // One that cannot be is refused before anything is made.
  stateFolder();
  const choice = await chooseOrExplain(checked.accel);
  if (choice.kind === "lab") refuseInLab(checked, choice.reason);
  await sayWhyLab(choice);
  const progress = new WorkProgress(options.isQuiet);
  const abort = new AbortController();
  let signal: number | undefined;
  const removeHandlers = onEndSignals((number) => {
    signal ??= number;
    abort.abort(new Error(`ended by signal ${String(number)}`));
  });
  try {
    const plan = await planVm(checked, {
      program: options,
      // In the foreground nothing stays that anybody could come back to.
      autoRemove: options.autoRemove || !options.isDetached,
      stopSignal: options.stopSignal,
      stopTimeoutMs: options.stopTimeoutMs,
      choice,
      onProgress: (text) => {
        progress.show(text);
      },
      signal: abort.signal,
    });
    try {
      if (options.idFile !== undefined) writeId(options.idFile, plan.spec.id);
      if (options.isDetached || options.hasTerminal) {
        const { runApart } = await import("./run-apart.js");
        return await runApart(plan.spec, { run: options, progress, signal: abort.signal });
      }
      const { runHere } = await import("./run-here.js");
      abort.signal.throwIfAborted();
      // It takes the signals over at once.
      return await runHere(plan.spec, progress);
    } finally {
      plan.release();
    }
  } catch (error) {
    if (signal !== undefined) return EXIT_SIGNAL_BASE + signal;
    if (!(error instanceof ExecError)) throw error;
    progress.done();
    say(error.message);
    return exitCodeOfStart(error);
  } finally {
    progress.done();
    removeHandlers();
  }
}

function refuseWithoutTerminal({ hasTerminal, isInteractive, isDetached }: RunOptions): void {
  if (!hasTerminal || !isInteractive || isDetached || isTerminal(STDIN)) return;
  throw new UsageError("vmlet run: --tty with --interactive needs a terminal as standard input; leave --tty out");
}

/** For whoever waits for it; it stays after the VM, as Docker's does. */
function writeId(path: string, id: string): void {
  try {
    writeFileSync(path, id, { flag: "wx" });
  } catch (error) {
    throw idFileError(path, (error as NodeJS.ErrnoException).code ?? "");
  }
}

function idFileError(path: string, code: string): HostError {
  return new HostError(`--cidfile ${path}: cannot be made: ${errnoText(code)}`);
}
