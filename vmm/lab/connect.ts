// Joins this process's terminal or pipes to a command in the lab, for as long as it runs.
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { Progress } from "../host/progress.js";
import { onEndSignals } from "../host/end-signals.js";
import { LabError } from "../errors.js";
import { timeLimit } from "../host/time-limit.js";
import type { LabOptions } from "./emulator.js";
import { LabSession, type LabResult } from "./session.js";

export interface ConnectedCommand {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** How long the command has to end by itself after a signal, `ms`. */
const GRACE_MS = 5000;

const SLOW =
  "the Intel lab is slow: Bochs interprets every instruction, so its start takes half a minute or more, a guest's as long again";

/** Starts a lab, runs the command in it as if it ran here, and takes the lab down. */
export async function runInLab(options: LabOptions, command: ConnectedCommand): Promise<LabResult> {
  if (options.cpu === "intel") process.stderr.write(`vmlet: ${SLOW}\n`);
  const progress = new Progress("the lab is starting");
  const abort = new AbortController();
  let signal: number | undefined;
  const removeHandlers = onEndSignals((number) => {
    signal ??= number;
    abort.abort(new LabError("Interrupted while the lab was starting"));
  });
  let session: LabSession;
  try {
    session = await LabSession.start(options, {
      abort: abort.signal,
      onProgress: (text) => {
        progress.update(`the lab is starting: ${text}`);
      },
    });
  } catch (error) {
    if (signal === undefined) throw error;
    return { status: EXIT_SIGNAL_BASE + signal, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), files: new Map() };
  } finally {
    progress.done();
    removeHandlers();
  }
  const disconnect = connectInput(session);
  const isTerminal = hasTerminal();
  try {
    return await session.run({
      ...command,
      env: { ...command.env, ...(process.env["TERM"] === undefined ? {} : { TERM: process.env["TERM"] }) },
      terminal: isTerminal ? { rows: process.stdout.rows, columns: process.stdout.columns } : undefined,
      onOutput: (bytes, stream) => process[stream].write(bytes),
    });
  } finally {
    disconnect();
    await session.close();
  }
}

function hasTerminal(): boolean {
  return process.stdin.isTTY && process.stdout.isTTY;
}

function connectInput(session: LabSession): () => void {
  const { stdin } = process;
  const isTerminal = hasTerminal();
  if (isTerminal) stdin.setRawMode(true);
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
  stdin.on("data", onData).on("end", onEnd).on("error", onEnd);
  if (isTerminal) process.stdout.on("resize", onResize);

  let grace: NodeJS.Timeout | undefined;
  const handlers = (["SIGINT", "SIGTERM", "SIGHUP"] as const).map((name) => {
    const handler = (_: NodeJS.Signals, number: number): void => {
      session.signal(number);
      grace ??= setTimeout(() => void session.close(), timeLimit("the command's end", GRACE_MS)).unref();
    };
    process.on(name, handler);
    return [name, handler] as const;
  });
  return () => {
    clearTimeout(grace);
    if (isTerminal) stdin.setRawMode(false);
    stdin.off("data", onData).off("end", onEnd).off("error", onEnd);
    stdin.pause();
    process.stdout.off("resize", onResize);
    for (const [name, handler] of handlers) process.off(name, handler);
  };
}
