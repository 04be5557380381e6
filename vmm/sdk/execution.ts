// A command that a program runs in a VM: awaited, it is a result; iterated, its output as it comes; or a process with streams.
import { pipeline } from "node:stream/promises";
import type { AgentConnection } from "../agent/connection.js";
import type { CommandOptions } from "../agent/exec-request.js";
import { startCommand, type GuestProcess } from "../agent/exec.js";
import type { OutputChunk } from "../agent/merged-chunks.js";
import { limitedSignal } from "../agent/abort.js";
import { checkRunOptions, runCommand, timeoutError, type RunOptions } from "../agent/run.js";
import type { RunResult } from "../agent/run-result.js";

export type ExecOptions = RunOptions;

/** Starts in the turn in which it is made: what it is used as until then decides how its output is taken. */
export class Execution implements Promise<RunResult>, AsyncIterable<OutputChunk> {
  readonly [Symbol.toStringTag] = "Execution";
  readonly #connection: AgentConnection;
  readonly #command: readonly string[];
  readonly #options: ExecOptions;
  #result: Promise<RunResult> | undefined;
  #process: Promise<GuestProcess> | undefined;

  /** @internal */
  constructor(connection: AgentConnection, command: readonly string[], options: ExecOptions) {
    this.#connection = connection;
    this.#command = command;
    this.#options = options;
    queueMicrotask(() => {
      if (this.#process === undefined) this.result().catch(() => undefined);
    });
  }

  /** All that it has written, and its exit code, which is no error unless `check` asks for that. */
  result(): Promise<RunResult> {
    if (this.#process !== undefined) throw new Error("This command's output is read as it comes");
    this.#result ??= runCommand(this.#connection, this.#command, this.#options);
    return this.#result;
  }

  /** As a process with streams; to be asked for in the turn in which it was made. */
  process(): Promise<GuestProcess> {
    return this.#start(this.#options.noInput);
  }

  then<Fulfilled = RunResult, Rejected = never>(
    onFulfilled?: ((result: RunResult) => Fulfilled | PromiseLike<Fulfilled>) | null,
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Fulfilled | Rejected> {
    return this.result().then(onFulfilled, onRejected);
  }

  catch<Rejected = never>(
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<RunResult | Rejected> {
    return this.result().catch(onRejected);
  }

  finally(onFinally?: (() => void) | null): Promise<RunResult> {
    return this.result().finally(onFinally);
  }

  /** Pieces of both outputs, in the order in which they come; ends after the command. */
  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    const process = await this.#start(this.#options.stdin === undefined);
    yield* process;
    await process.exit;
  }

  /** Lines of standard output, as they come. */
  async *lines(): AsyncGenerator<string> {
    const process = await this.#start(this.#options.stdin === undefined);
    process.stderr.resume();
    yield* process.lines();
    await process.exit;
  }

  #start(noInput: boolean | undefined): Promise<GuestProcess> {
    if (this.#result !== undefined) throw new Error("This command's output is collected");
    this.#process ??= this.#startNow(noInput ?? false);
    return this.#process;
  }

  async #startNow(noInput: boolean): Promise<GuestProcess> {
    checkRunOptions(this.#options);
    const { stdin, timeoutMs } = this.#options;
    const limit = limitedSignal(this.#options.signal, timeoutMs, (ms) => timeoutError(this.#command, ms));
    let process: GuestProcess;
    try {
      process = await startCommand(this.#connection, this.#command, {
        ...withoutLimit(this.#options),
        ...(limit.signal === undefined ? {} : { signal: limit.signal }),
        noInput,
      });
    } catch (error) {
      limit.done();
      throw error;
    }
    process.exit.then(limit.done, limit.done);
    if (stdin !== undefined) {
      const source = typeof stdin === "string" || stdin instanceof Uint8Array ? [stdin] : stdin;
      // A program that does not read all of it ends the stream, which is no error.
      pipeline(source, process.stdin).catch(() => undefined);
    }
    return process;
  }
}

function withoutLimit({ signal: _signal, timeoutMs: _timeoutMs, ...rest }: ExecOptions): CommandOptions {
  return rest;
}
