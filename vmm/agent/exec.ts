// A command of the guest as a process with streams, as those of node:child_process.
import type { Readable, Writable } from "node:stream";
import { abortReason } from "./abort.js";
import { GuestCommand, type ExitStatus } from "./command.js";
import type { AgentConnection } from "./connection.js";
import { outputsOf, type CommandOptions } from "./exec-request.js";
import type { GuestBytes } from "./guest-bytes.js";
import { InputStream } from "./input-stream.js";
import { linesOf } from "./lines.js";
import { mergedChunks, type OutputChunk } from "./merged-chunks.js";
import { OutputStream } from "./output-stream.js";

/** Options of a command that is started and watched. */
export interface ExecOptions extends CommandOptions {
  /** Kills the command with all that belongs to it; `exit` rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * A command that runs in the guest. Read its outputs, or destroy them: what nobody takes stops the command once a window
 * is full. Iterating over it gives the pieces of both outputs as they come.
 */
export class GuestProcess implements AsyncIterable<OutputChunk> {
  /** In the guest. */
  readonly pid: number;
  /** What the command does not read any more is dropped, and the stream is destroyed then. */
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Ends at once with a terminal, or merged. */
  readonly stderr: Readable;
  /** How it has ended. Rejects with AgentError if the connection is over before, with the signal's reason if that has killed it. */
  readonly exit: Promise<ExitStatus>;
  readonly #command: GuestCommand;

  /** @internal */
  constructor(pid: number, parts: ProcessParts, command: GuestCommand) {
    this.pid = pid;
    this.stdin = parts.stdin;
    this.stdout = parts.stdout;
    this.stderr = parts.stderr;
    this.exit = parts.exit;
    this.#command = command;
  }

  /** A signal by name or number, to the process, or to its process group. Nothing happens after its end. */
  kill(signal: string | number = "SIGTERM", options: { readonly group?: boolean } = {}): void {
    this.#command.kill(signal, options.group ?? false);
  }

  /** Kills it with all that belongs to it. */
  cancel(): void {
    this.#command.cancel();
  }

  /** A new size of its terminal. */
  resize(rows: number, columns: number): void {
    this.#command.resize(rows, columns);
  }

  /** Pieces of both outputs, as they come. Leaving the loop destroys the outputs. */
  [Symbol.asyncIterator](): AsyncIterator<OutputChunk> {
    return mergedChunks({ stdout: this.stdout, stderr: this.stderr });
  }

  /** Lines of standard output, without their ends; a line is cut at 1 MiB. */
  lines(): AsyncIterable<string> {
    return linesOf(this.stdout);
  }
}

interface ProcessParts {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly exit: Promise<ExitStatus>;
}

/**
 * Starts a command; resolves once it runs. Rejects with ExecError where it cannot be run (exitCode 126 or 127), with
 * AgentError, with the signal's reason, and with ConfigError for options that make no sense.
 */
export function startCommand(
  connection: AgentConnection,
  words: readonly GuestBytes[],
  options: ExecOptions = {},
  heldOn?: number,
): Promise<GuestProcess> {
  return new Promise((resolve, reject) => {
    const { signal } = options;
    signal?.throwIfAborted();
    let resolveExit: (status: ExitStatus) => void = () => undefined;
    let rejectExit: (error: unknown) => void = () => undefined;
    const exit = new Promise<ExitStatus>((resolveIt, rejectIt) => {
      resolveExit = resolveIt;
      rejectExit = rejectIt;
    });
    // Whoever does not wait for it must not end with it.
    exit.catch(() => undefined);
    const outputs = [1, 2].map(
      (output) =>
        new OutputStream(
          (count) => {
            command.consumed(output as 1 | 2, count);
          },
          () => {
            command.stream.discard(output as 1 | 2);
          },
        ),
    ) as [OutputStream, OutputStream];
    const [stdout, stderr] = outputs;
    const stdin = new InputStream({
      write: (bytes) => command.write(bytes),
      end: () => {
        command.end();
      },
    });
    const parts: ProcessParts = { stdin, stdout, stderr, exit };
    const onAbort = (): void => {
      command.cancel();
    };
    const finish = (): void => {
      signal?.removeEventListener("abort", onAbort);
      stdin.destroy();
    };
    const command: GuestCommand = new GuestCommand(
      connection,
      words,
      options,
      {
        onStarted: (pid) => {
          resolve(new GuestProcess(pid, parts, command));
        },
        onOutput: (output, bytes) => {
          outputs[output - 1]?.receive(bytes);
        },
        onOutputEnd: (output) => outputs[output - 1]?.finish(),
        onInputClosed: () => {
          stdin.destroy();
        },
        onWritable: () => {
          stdin.resumeWriting();
        },
        onExit: (status) => {
          finish();
          for (const output of outputs) output.finish();
          if (signal?.aborted === true) rejectExit(abortReason(signal));
          else resolveExit(status);
        },
        onFailed: (error) => {
          const reason = signal?.aborted === true ? abortReason(signal) : error;
          finish();
          for (const output of outputs) output.destroy(reason);
          reject(reason);
          rejectExit(reason);
        },
      },
      heldOn,
    );
    if (outputsOf(options) === 1) stderr.finish();
    if (options.noInput === true) stdin.destroy();
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
