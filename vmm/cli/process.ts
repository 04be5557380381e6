// What every command of vmlet is wrapped in: errors in words, exit codes, the process's end.
import { ConfigError, VmmError } from "../errors.js";
import { cureForAny } from "../sys/cures.js";
import { describeSystemError } from "../host/errno-text.js";
import { toIgnoreAgain } from "../host/inherited-signals.js";
import { OutputError, say } from "../host/say.js";
import { refuseOtherThanUtf8 } from "./argument-bytes.js";
import { exitCodeOfError } from "./exit-code.js";
import { UnwritableError } from "./unwritable-error.js";
import { UsageError } from "./usage-error.js";

/** How a command is to end, once it knows. */
export interface ProcessEnd {
  /** Ends a process whose VM may have threads, or that had the terminal; only what needs it loads it. */
  exit: ((code: number) => never) | undefined;
  /** In place of the exit code that an error has elsewhere. */
  failure: number | undefined;
}

function complain(error: unknown): void {
  if (error instanceof OutputError) {
    // The reader has closed the pipe: it wants no message either.
    if (!error.isBrokenPipe) say(error.message);
  } else if (error instanceof UsageError || error instanceof UnwritableError) {
    say(error.message);
  } else if (error instanceof VmmError) {
    const lines = error instanceof ConfigError ? error.problems : [error.message];
    for (const line of lines) say(line);
    if (error.cure !== undefined) say(`what helps: ${error.cure}`);
  } else if (describeSystemError(error) !== undefined) {
    say(describeSystemError(error) ?? "");
    const cure = cureForAny((error as NodeJS.ErrnoException).code ?? "");
    if (cure !== undefined) say(`what helps: ${cure}`);
  } else {
    say(`internal error: ${error instanceof Error ? (error.stack ?? "") : String(error)}`);
  }
}

/** The signals that nohup, or a shell for a background job, has set to be ignored. */
async function ignoreAgain(): Promise<void> {
  const signals = toIgnoreAgain();
  if (signals.length === 0) return;
  const { ignoreSignal } = await import("../sys/signals.js");
  for (const signal of signals) ignoreSignal(signal);
}

/** Runs a command with this process's arguments, and ends the process. */
export async function runProcess(main: (argv: readonly string[], end: ProcessEnd) => Promise<number>): Promise<void> {
  const end: ProcessEnd = { exit: undefined, failure: undefined };
  let exitCode: number;
  try {
    await ignoreAgain();
    const argv = process.argv.slice(2);
    refuseOtherThanUtf8(argv);
    exitCode = await main(argv, end);
  } catch (error) {
    complain(error);
    exitCode = end.failure ?? exitCodeOfError(error);
  }
  end.exit?.(exitCode);
  process.exit(exitCode);
}
