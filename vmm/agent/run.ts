// A command of the guest from its start to its end: input in, both outputs and the exit code out.
import { ConfigError, ExecError, type AgentError } from "../errors.js";
import { abortReason } from "./abort.js";
import { Collector } from "./collector.js";
import { GuestCommand, type ExitStatus } from "./command.js";
import type { AgentConnection } from "./connection.js";
import type { CommandOptions } from "./exec-request.js";
import { shown, type GuestBytes } from "./guest-bytes.js";
import { InputPump, type CommandInput } from "./input-pump.js";
import { RunResult } from "./run-result.js";

/** Options of a command that is waited for. */
export interface RunOptions extends CommandOptions {
  /** Its standard input: text, bytes, or a stream of them. Otherwise there is nothing to read. */
  readonly stdin?: CommandInput;
  /** The command is killed with all that belongs to it when this is over, and `run` rejects with ExecError. */
  readonly timeoutMs?: number;
  /** The same when this is aborted; `run` rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Of each output, `bytes`; what is more is dropped, and the result says so. */
  readonly maxOutputBytes?: number;
  /** Rejects with ExecError unless the command exits with 0. */
  readonly check?: boolean;
}

/** Enough for what a program reads as one string, and no more than a host can spare for a guest that writes for ever. */
const MAX_OUTPUT = 16 * 2 ** 20;
/** What a timer of Node's can do. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/**
 * Runs a command and waits for its end. Its exit code is a result, not an error, unless `check` asks for that. Rejects with
 * ExecError where it cannot be run (exitCode 126 or 127) or takes too long, with AgentError if the connection ends.
 */
export function runCommand(
  connection: AgentConnection,
  words: readonly GuestBytes[],
  options: RunOptions = {},
): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    checkRunOptions(options);
    const { signal, timeoutMs, stdin, maxOutputBytes = MAX_OUTPUT } = options;
    signal?.throwIfAborted();
    const outputs = [new Collector(maxOutputBytes), new Collector(maxOutputBytes)] as const;
    const take = (status: ExitStatus): RunResult => {
      const [stdout, stderr] = outputs;
      return new RunResult(status, stdout.take(), stderr.take(), stdout.isTruncated || stderr.isTruncated);
    };
    /** Why it was killed from here. */
    let stopped: "timeout" | "input" | undefined;
    let inputError = new Error("The input has failed");
    const stop = (why: typeof stopped): void => {
      stopped ??= why;
      command.cancel();
    };
    const onAbort = (): void => {
      command.cancel();
    };
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            stop("timeout");
          }, timeoutMs);
    const end = (status: ExitStatus, error?: ExecError | AgentError): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      input?.stop();
      const result = take(status);
      if (signal?.aborted === true) reject(abortReason(signal));
      else if (stopped === "timeout") reject(timeoutError(words, timeoutMs ?? 0, result));
      else if (stopped === "input") reject(inputError);
      else if (error !== undefined) reject(error);
      else if (options.check === true && !result.ok) reject(failureError(words, result));
      else resolve(result);
    };
    let input: InputPump | undefined;
    const command: GuestCommand = new GuestCommand(
      connection,
      words,
      { ...options, noInput: options.noInput ?? stdin === undefined },
      {
        onOutput: (output, bytes) => {
          outputs[output - 1]?.push(bytes);
          command.consumed(output, bytes.length);
        },
        onInputClosed: () => input?.stop(),
        onWritable: () => input?.resume(),
        onExit: (status) => {
          end(status);
        },
        onFailed: (error) => {
          end(KILLED, error);
        },
      },
    );
    if (stdin !== undefined) {
      input = new InputPump(stdin, command, (error) => {
        if (error instanceof Error) inputError = error;
        else inputError.cause = error;
        stop("input");
      });
    }
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** Of a command whose end nobody has seen. */
const KILLED: ExitStatus = { exitCode: 137, signal: "SIGKILL" };

/** Throws ConfigError. */
export function checkRunOptions({ timeoutMs, maxOutputBytes, stdin, noInput }: RunOptions): void {
  const problems: string[] = [];
  if (timeoutMs !== undefined && !(timeoutMs >= 1 && timeoutMs <= MAX_TIMEOUT_MS)) {
    problems.push(`timeoutMs: ${String(timeoutMs)} is not a number from 1 to ${String(MAX_TIMEOUT_MS)}`);
  }
  if (maxOutputBytes !== undefined && !(Number.isSafeInteger(maxOutputBytes) && maxOutputBytes >= 0)) {
    problems.push(`maxOutputBytes: ${String(maxOutputBytes)} is not a number from 0 on`);
  }
  if (stdin !== undefined && noInput === true) problems.push("stdin: there is input although noInput is asked for");
  if (problems.length > 0) throw new ConfigError(problems);
}

/** For a command that was killed because its time was over; `result`: what it had written, as far as it was kept. */
export function timeoutError(
  words: readonly GuestBytes[],
  timeoutMs: number,
  result: RunResult = new RunResult(KILLED, Buffer.alloc(0), Buffer.alloc(0), false),
): ExecError {
  const message = `${nameOf(words)} was killed: it took longer than ${String(timeoutMs)} ms`;
  return new ExecError(message, { ...failureOf(words, result), isTimeout: true });
}

/** For a result that is to be an error. */
export function failureError(words: readonly GuestBytes[], result: RunResult): ExecError {
  const how = result.signal === null ? `exited with ${String(result.exitCode)}` : `was ended by ${result.signal}`;
  const lastLine = shown(result.stderr.trimEnd().split("\n").at(-1) ?? "").slice(0, MAX_SHOWN);
  return new ExecError(`${nameOf(words)} ${how}${lastLine === "" ? "" : `: ${lastLine}`}`, failureOf(words, result));
}

const MAX_SHOWN = 200;

function nameOf(words: readonly GuestBytes[]): string {
  return shown(words[0] ?? "");
}

function failureOf(
  words: readonly GuestBytes[],
  { exitCode, signal, stdout, stderr }: RunResult,
): ConstructorParameters<typeof ExecError>[1] {
  return { command: words.map(shown), exitCode, signal, stdout, stderr };
}
