// The entry of vmlet-firecracker: Firecracker's command line, in a bundle of its own. What is behind it is vmm/firecracker.
import { writeFileSync } from "node:fs";
import { basename } from "node:path";
import { print, sayRaw } from "../host/say.js";
import { ArgumentError, parseCommandLine } from "../firecracker/command-line.js";
import { EXIT_ARGUMENTS, EXIT_GENERIC } from "../firecracker/exit-codes.js";
import { serveFirecracker } from "../firecracker/serve.js";
import { FIRECRACKER_VERSION, SNAPSHOT_VERSION } from "../firecracker/version.js";
import { deliverSignals } from "../sys/signals.js";
import { exitNow } from "../sys/exit.js";
import { isTerminal } from "../sys/files.js";
import { FileInput, type InputSource } from "../host/file-input.js";
import { TerminalInput } from "./input-source.js";
import { runProcess, type ProcessEnd } from "./process.js";

const STDIN = 0;

async function main(argv: readonly string[], end: ProcessEnd): Promise<number> {
  beNamed(process.argv[1] ?? "");
  end.exit = exitNow;
  end.failure = EXIT_GENERIC;
  let commandLine: ReturnType<typeof parseCommandLine>;
  try {
    commandLine = parseCommandLine(argv);
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    complain(`${error.message}\n\nFor more information try --help.`);
    return EXIT_ARGUMENTS;
  }
  switch (commandLine.kind) {
    case "run":
      return serveFirecracker(commandLine.options, {
        openInput,
        complain,
        loadMachine: async (options) => new (await import("../firecracker/machine.js")).Machine(options),
        deliverSignals,
        onSignals: async (callback) => (await import("../sys/end-signals.js")).onEndSignals(callback),
      });
    case "help":
      print((await import("../firecracker/help.js")).help());
      return 0;
    case "version":
      print(`Firecracker v${FIRECRACKER_VERSION}\n`);
      return 0;
    case "snapshot-version":
      print(`v${SNAPSHOT_VERSION}\n`);
      return 0;
    case "describe-snapshot":
      return describeSnapshot(commandLine.file);
  }
}

/** Clients look for a process of the name that their executable has, and this one would be called "node". */
function beNamed(path: string): void {
  try {
    writeFileSync("/proc/self/comm", basename(path));
  } catch {
    // A host without /proc has nobody who looks there.
  }
}

async function describeSnapshot(file: string): Promise<number> {
  const { isPairState } = await import("../snapshot/file-pair.js");
  try {
    if (isPairState(file)) {
      print(`v${SNAPSHOT_VERSION}\n`);
      return 0;
    }
    complain(`${file}: not the state of a snapshot that was made through this API`);
  } catch (error) {
    if ((error as { readonly code?: unknown }).code !== "ERR_SNAPSHOT") throw error;
    complain((error as Error).message);
  }
  return EXIT_GENERIC;
}

function complain(message: string): void {
  sayRaw(`Error: ${message}\n`);
}

/** Every byte is the guest's: there are no keys that mean something here. */
function openInput(input: (bytes: Uint8Array) => number): { resume(): void; close(): void } {
  const source: InputSource = isTerminal(STDIN) ? new TerminalInput() : new FileInput();
  let pending: Uint8Array = new Uint8Array();
  const flush = (): void => {
    if (pending.length > 0) pending = pending.subarray(input(pending));
    if (pending.length > 0) source.pause();
    else source.resume();
  };
  source.open(
    (bytes) => {
      pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes]);
      flush();
    },
    () => undefined,
  );
  return {
    resume: flush,
    close: () => {
      source.close();
    },
  };
}

void runProcess(main);
