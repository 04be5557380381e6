// A command in the lab: what it is started with, and what comes back of it frame by frame.
import type { Frame } from "./frames.js";

export interface LabCommand {
  readonly argv: readonly (string | Uint8Array)[];
  /** `argv` is what follows `vmlet`, of this package: the one that waits in a saved state takes it. */
  readonly isVmlet?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly terminal?: { readonly rows: number; readonly columns: number } | undefined;
  /** All of standard input; without it the caller writes with `input` and `endInput`. */
  readonly stdin?: string | Uint8Array;
  readonly onOutput?: (bytes: Buffer, stream: "stdout" | "stderr") => void;
}

export interface LabResult {
  /** Exit status, or 128 + signal. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Files that the command left in /output. */
  readonly files: ReadonlyMap<string, Buffer>;
}

/** One that runs. */
export class RunningCommand {
  readonly result: Promise<LabResult>;
  readonly #command: LabCommand;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  readonly #files = new Map<string, Buffer>();
  #resolve: (result: LabResult) => void = () => undefined;
  #reject: (error: Error) => void = () => undefined;

  constructor(command: LabCommand) {
    this.#command = command;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** A frame that is about the command; any other is left alone. */
  take({ type, payload }: Frame): void {
    switch (type) {
      case "O":
      case "2": {
        const { onOutput } = this.#command;
        const isOutput = type === "O";
        if (onOutput !== undefined) onOutput(payload, isOutput ? "stdout" : "stderr");
        else (isOutput ? this.#stdout : this.#stderr).push(Buffer.from(payload));
        break;
      }
      case "F": {
        const end = payload.indexOf(0);
        this.#files.set(payload.toString("utf8", 0, end), Buffer.from(payload.subarray(end + 1)));
        break;
      }
      case "Z": {
        const signal = payload.readUInt32LE(4);
        this.#resolve({
          status: signal === 0 ? payload.readUInt32LE(0) : 128 + signal,
          stdout: Buffer.concat(this.#stdout),
          stderr: Buffer.concat(this.#stderr),
          files: this.#files,
        });
        break;
      }
      default:
        break;
    }
  }

  fail(error: Error): void {
    this.#reject(error);
  }
}
