// The command line's entry: the only reader of process.argv and the only caller of exit.
import { createRequire } from "node:module";
import { refuseOtherThanUtf8 } from "./cli/argument-bytes.js";
import { exitCodeOfError } from "./cli/exit-code.js";
import { WAIT_COMMAND } from "./lab/environment.js";
import { UnwritableError } from "./cli/unwritable-error.js";
import { UsageError } from "./cli/usage-error.js";
import { describeSystemError } from "./host/errno-text.js";
import { toIgnoreAgain } from "./host/inherited-signals.js";
import { OutputError, print, say } from "./host/say.js";
import { ConfigError, VmmError } from "./errors.js";

/** Ends a process whose VM may have threads, or that had the terminal; only what needs it loads it. */
let exitVm: ((code: number) => never) | undefined;

async function main([command, ...rest]: readonly string[]): Promise<number> {
  // Only there is somebody who gives work.
  if (command === WAIT_COMMAND && process.env["VMLET_IN_LAB"] === "1") {
    return main(await (await import("./cli/lab-work.js")).takeWork());
  }
  switch (command) {
    case "boot":
      exitVm = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/boot.js")).boot(rest);
    case "doctor":
      return (await import("./cli/doctor.js")).doctor(rest);
    case "bench":
      return bench(rest);
    case "stats":
      return (await import("./cli/stats.js")).stats(rest);
    case "balloon":
      return (await import("./cli/balloon.js")).balloon(rest);
    case "pause":
      return (await import("./cli/pause.js")).pause(rest);
    case "resume":
      return (await import("./cli/pause.js")).resume(rest);
    case "snapshot":
      if (rest[0] === "restore" || rest[0] === "receive") exitVm = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/snapshot.js")).snapshot(rest);
    case "migrate":
      return (await import("./cli/migrate.js")).migrate(rest);
    case "lab":
      // Node's own exit would reset the terminal to its state at the start, even if another job has it now.
      exitVm = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/lab.js")).lab(rest);
    case "--version":
    case "-V":
      print(`${(await import("./host/version.js")).VERSION}\n`);
      return 0;
    case "--help":
    case "-h":
    case "help":
      print((await import("./cli/help.js")).help());
      return 0;
    case undefined:
      throw new UsageError("No command is given; try: vmlet --help");
    default:
      throw new UsageError(
        `Unknown command ${JSON.stringify(command)}; known are balloon, bench, boot, doctor, lab, migrate, pause, resume, snapshot, stats`,
      );
  }
}

/** In a file of its own: it is as big as all the rest, and only this command reads it. */
async function bench(argv: readonly string[]): Promise<number> {
  const { tinyInitrd } = await import("./host/guest-files.js");
  if (!argv.includes("--help") && !argv.includes("-h")) {
    await (await import("./host/first-use.js")).buildMissing([tinyInitrd()]);
  }
  const file = "./ladder.js";
  const ladder = createRequire(import.meta.url)(file) as { bench(argv: readonly string[]): Promise<number> };
  return ladder.bench(argv);
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
  } else {
    say(`internal error: ${error instanceof Error ? (error.stack ?? "") : String(error)}`);
  }
}

/** The signals that nohup, or a shell for a background job, has set to be ignored. */
async function ignoreAgain(): Promise<void> {
  const signals = toIgnoreAgain();
  if (signals.length === 0) return;
  const { ignoreSignal } = await import("./sys/signals.js");
  for (const signal of signals) ignoreSignal(signal);
}

async function run(): Promise<void> {
  let exitCode: number;
  try {
    await ignoreAgain();
    const argv = process.argv.slice(2);
    refuseOtherThanUtf8(argv);
    exitCode = await main(argv);
  } catch (error) {
    complain(error);
    exitCode = exitCodeOfError(error);
  }
  exitVm?.(exitCode);
  process.exit(exitCode);
}

void run();
