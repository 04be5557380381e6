// Joins this process's terminal or pipes to a command in the lab, for as long as it runs.
import { EXIT_OUTPUT_LOST, EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { say } from "../host/say.js";
import { OutputQueue, OutputWriter } from "../host/standard-output.js";
import { Progress } from "../host/progress.js";
import { onEndSignals } from "../sys/end-signals.js";
import { LabError } from "../errors.js";
import { timeLimit } from "../host/time-limit.js";
import type { LabOptions } from "./emulator.js";
import { isTerminal } from "../sys/files.js";
import { RawTerminal, isInForeground } from "../sys/terminal.js";
import type { LabResult } from "./command.js";
import { LabSession } from "./session.js";

export interface ConnectedCommand {
  readonly argv: readonly (string | Uint8Array)[];
  readonly isVmlet?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Signals that do not end it. */
  readonly outlives?: readonly number[];
}

/** How long the command has to end by itself after a signal, `ms`. */
const GRACE_MS = 5000;

const STDIN = 0;
const STDERR = 2;
const SIGPIPE = 13;
/** Of a command that has not come to its end. */
const ENDED = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), files: new Map<string, Buffer>() };
const SLOW =
  "the Intel lab is slow: Bochs interprets every instruction, so its start takes half a minute or more, a guest's as long again";

/** Starts a lab, runs the command in it as if it ran here, and takes the lab down. */
export async function runInLab(options: LabOptions, command: ConnectedCommand): Promise<LabResult> {
  if (options.cpu === "intel") say(SLOW);
  const progress = new Progress("the lab is starting", isTerminal(STDERR) && isInForeground(STDERR));
  const abort = new AbortController();
  let signal: number | undefined;
  const { outlives = [], ...labCommand } = command;
  const removeHandlers = onEndSignals((number) => {
    if (outlives.includes(number)) return;
    signal ??= number;
    abort.abort(new LabError("Interrupted while the lab was starting"));
  });
  let session: LabSession;
  try {
    session = await LabSession.start(options, {
      abort: abort.signal,
      onNotice: (line) => {
        progress.clear();
        say(line);
      },
      onProgress: (text) => {
        progress.update(`the lab is starting: ${text}`);
      },
    });
  } catch (error) {
    if (signal === undefined) throw error;
    return { ...ENDED, status: EXIT_SIGNAL_BASE + signal };
  } finally {
    progress.done();
    removeHandlers();
  }
  const disconnect = connectInput(session, outlives);
  const onTerminal = hasTerminal();
  const vanished = new AbortController();
  const writers = (["stdout", "stderr"] as const).map(
    (name, index) =>
      new OutputWriter(index + 1, {
        vanished: () => {
          // Nobody reads what the command says any more; without standard error it can go on.
          if (name !== "stdout") return;
          vanished.abort();
          void session.close();
        },
        failed: (why) => {
          if (name === "stdout") say(`standard output: ${why}: what the command writes is lost`);
        },
      }),
  );
  const [stdout, stderr] = writers.map((writer) => new OutputQueue(writer));
  try {
    const result = await session.run({
      ...labCommand,
      env: { ...labCommand.env, ...(process.env["TERM"] === undefined ? {} : { TERM: process.env["TERM"] }) },
      terminal: onTerminal ? { rows: process.stdout.rows, columns: process.stdout.columns } : undefined,
      // More comes once it has been written.
      onOutput: (bytes, stream) =>
        new Promise((resolve) => {
          (stream === "stdout" ? stdout : stderr)?.push(Buffer.from(bytes), resolve);
        }),
    });
    await stdout?.drained();
    await stderr?.drained();
    const isLost = result.status === 0 && (writers[0]?.lostBytes ?? 0) > 0;
    return isLost ? { ...result, status: EXIT_OUTPUT_LOST } : result;
  } catch (error) {
    if (vanished.signal.aborted) return { ...ENDED, status: EXIT_SIGNAL_BASE + SIGPIPE };
    throw error;
  } finally {
    disconnect();
    await session.close();
  }
}

function hasTerminal(): boolean {
  return process.stdin.isTTY && process.stdout.isTTY;
}

function connectInput(session: LabSession, outlives: readonly number[]): () => void {
  const { stdin } = process;
  const onData = (chunk: Buffer): void => {
    if (session.input(chunk)) return;
    stdin.pause();
    session.onceDrained(() => stdin.resume());
  };
  const onEnd = (): void => {
    session.endInput();
  };
  const onResize = (): void => {
    session.resize(process.stdout.rows, process.stdout.columns);
  };
  const listen = (): void => {
    stdin.off("data", onData).on("data", onData).resume();
  };
  const terminal = hasTerminal()
    ? new RawTerminal(STDIN, { taken: listen, lost: () => stdin.off("data", onData).pause() })
    : undefined;
  stdin.on("end", onEnd).on("error", onEnd);
  if (terminal === undefined) listen();
  else {
    terminal.open();
    process.stdout.on("resize", onResize);
  }

  let grace: NodeJS.Timeout | undefined;
  const removeHandlers = onEndSignals((number) => {
    session.signal(number);
    if (outlives.includes(number)) return;
    grace ??= setTimeout(() => void session.close(), timeLimit("the command's end", GRACE_MS)).unref();
  });
  return () => {
    clearTimeout(grace);
    terminal?.close();
    stdin.off("data", onData).off("end", onEnd).off("error", onEnd);
    stdin.pause();
    process.stdout.off("resize", onResize);
    removeHandlers();
  };
}
