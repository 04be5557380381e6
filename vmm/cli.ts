// The command line's entry: the only reader of process.argv and the only caller of exit.
import { createRequire } from "node:module";
import { boot } from "./cli/boot.js";
import { exitCodeOfError, UsageError } from "./cli/exit-codes.js";
import { ConfigError, VmmError } from "./errors.js";

async function main([command, ...rest]: readonly string[]): Promise<number> {
  switch (command) {
    case "boot":
      return boot(rest);
    case "doctor":
      return (await import("./cli/doctor.js")).doctor(rest);
    case "bench":
      return bench(rest);
    case "stats":
      return (await import("./cli/stats.js")).stats(rest);
    case "lab":
      return (await import("./cli/lab.js")).lab(rest);
    case "--version":
    case "-V":
      process.stdout.write(`${(await import("./cli/version.js")).VERSION}\n`);
      return 0;
    case "--help":
    case "-h":
    case "help":
      process.stdout.write((await import("./cli/help.js")).HELP);
      return 0;
    case undefined:
      throw new UsageError("No command is given; try: vmlet --help");
    default:
      throw new UsageError(`Unknown command ${JSON.stringify(command)}; known are bench, boot, doctor, lab, stats`);
  }
}

/** In a file of its own: it is as big as all the rest, and only this command reads it. */
async function bench(argv: readonly string[]): Promise<number> {
  const file = "./ladder.js";
  const ladder = createRequire(import.meta.url)(file) as { bench(argv: readonly string[]): Promise<number> };
  return ladder.bench(argv);
}

function complain(error: unknown): void {
  if (error instanceof UsageError) {
    process.stderr.write(`vmlet: ${error.message}\n`);
  } else if (error instanceof VmmError) {
    const lines = error instanceof ConfigError ? error.problems : [error.message];
    for (const line of lines) process.stderr.write(`vmlet: ${line}\n`);
    if (error.cure !== undefined) process.stderr.write(`vmlet: what helps: ${error.cure}\n`);
  } else {
    process.stderr.write(`vmlet: internal error: ${error instanceof Error ? (error.stack ?? "") : String(error)}\n`);
  }
}

async function run(): Promise<void> {
  let exitCode: number;
  try {
    exitCode = await main(process.argv.slice(2));
  } catch (error) {
    complain(error);
    exitCode = exitCodeOfError(error);
  }
  // A VM may have threads; the other commands have not even loaded what ends a process with them.
  if (process.argv[2] === "boot") (await import("./sys/exit.js")).exitNow(exitCode);
  process.exit(exitCode);
}

void run();
