// This process's streams at the program of a VM in another process, until that ends or the user leaves it.
import { EXIT_SIGNAL_BASE } from "../../host/exit-codes.js";
import type { OutputQueue } from "../../host/standard-output.js";
import { say } from "../../host/say.js";
import { AttachClient } from "../../sdk/attach-client.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { isTerminal } from "../../sys/files.js";
import { FileInput, type InputSource } from "../../host/file-input.js";
import { TerminalInput } from "../input-source.js";
import type { DetachKeys } from "./detach-keys.js";
import { PATIENCE } from "./patience.js";
import { programOutput } from "./program-output.js";
import { followTerminalSize } from "./terminal-size.js";

const STDIN = 0;
const SIGHUP = 1;
const SIGPIPE = 13;
/** The VM has gone without saying how its program ended. */
const EXIT_LOST = 125;

export interface AttachedOptions {
  readonly name: string;
  readonly hasTerminal: boolean;
  readonly isInteractive: boolean;
  readonly detachKeys: DetachKeys;
  /** The terminal is to show what the program has drawn before. */
  readonly redraws?: boolean;
  /** Ends the VM, which is this process's; undefined: it is not. */
  readonly end?: () => Promise<void>;
}

/** The result is the process's exit code: the program's, or 0 once this process has left it. Rejects with what `AttachClient.ended` rejects with. */
export async function attachTo(path: string, options: AttachedOptions): Promise<number> {
  const signals = new HeldSignals();
  try {
    const client = await AttachClient.connect(path, {
      output: (output, bytes, done) => {
        session.outputs[output].push(bytes, done);
      },
      inputRoom: () => session.source?.resume(),
    });
    const session: Session = new Session(client, path, options);
    signals.handTo((number) => {
      session.signal(number);
    });
    return await session.run();
  } finally {
    signals.close();
  }
}

class Session {
  source: InputSource | undefined;
  readonly outputs = { 1: this.#output(1), 2: this.#output(2) };
  readonly #client: AttachClient;
  readonly #path: string;
  readonly #options: AttachedOptions;
  readonly #isRaw: boolean;
  #signals = 0;
  /** Exit code of a process that has left the program. */
  #left: number | undefined;

  constructor(client: AttachClient, path: string, options: AttachedOptions) {
    this.#client = client;
    this.#path = path;
    this.#options = options;
    this.#isRaw = options.hasTerminal && options.isInteractive && isTerminal(STDIN);
  }

  async run(): Promise<number> {
    const { redraws = false, hasTerminal, isInteractive, name } = this.#options;
    const removeResize = followTerminalSize((rows, columns) => {
      this.#client.resize(rows, columns);
    }, redraws && hasTerminal);
    try {
      if (isInteractive) this.#openInput();
      const exitCode = await this.#client.ended;
      await Promise.all([this.outputs[1].drained(), this.outputs[2].drained()]);
      this.source?.close();
      if (this.#left !== undefined) {
        if (this.#left === 0) say(`left; the VM runs on: vmlet attach ${name}`);
        return this.#left;
      }
      if (exitCode === undefined) say(`the connection to VM ${name} is lost`);
      return exitCode ?? EXIT_LOST;
    } finally {
      this.source?.close();
      removeResize();
    }
  }

  signal(number: number): void {
    if (++this.#signals > PATIENCE) {
      const { end } = this.#options;
      if (end === undefined) this.#leave(EXIT_SIGNAL_BASE + number);
      else
        void end().catch((error: unknown) => {
          say(error instanceof Error ? error.message : String(error));
        });
      return;
    }
    // By a connection of its own: on this one it would wait behind input that the program does not read.
    AttachClient.connect(this.#path, { output: (_, __, done) => done() }).then(
      (client) => {
        client.signal(number);
        client.end();
      },
      () => undefined,
    );
  }

  /** The terminal has gone. The program hears of that; if it goes on, others may come back to its terminal. */
  #hangUp(): void {
    this.#left ??= EXIT_SIGNAL_BASE + SIGHUP;
    this.#client.signal(SIGHUP);
    this.#client.end();
  }

  #leave(exitCode: number): void {
    this.#left ??= exitCode;
    this.#client.detach();
  }

  #openInput(): void {
    const { detachKeys } = this.#options;
    const source = this.#isRaw ? new TerminalInput({ rawOutput: true }) : new FileInput();
    this.source = source;
    source.open(
      (bytes) => {
        const { passed, isDetached } = this.#isRaw ? detachKeys.take(bytes) : { passed: bytes, isDetached: false };
        if (passed.length > 0 && !this.#client.input(passed)) source.pause();
        if (isDetached) this.#leave(0);
      },
      () => {
        if (this.#isRaw) this.#hangUp();
        else this.#client.endInput();
      },
    );
  }

  #output(fd: 1 | 2): OutputQueue {
    const vanished = (): void => {
      if (this.#options.end === undefined) this.#leave(EXIT_SIGNAL_BASE + SIGPIPE);
      else this.#client.signal(SIGPIPE);
    };
    return programOutput(fd, vanished, "output");
  }
}

/** Those that come before there is somebody to hand them to are kept. */
class HeldSignals {
  #early: number[] = [];
  #take: ((number: number) => void) | undefined;
  readonly close = onEndSignals((number) => {
    if (this.#take === undefined) this.#early.push(number);
    else this.#take(number);
  });

  handTo(take: (number: number) => void): void {
    this.#take = take;
    for (const number of this.#early.splice(0)) take(number);
  }
}
