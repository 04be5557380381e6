// What a command of the guest has written, and how it ended.
import type { ExitStatus } from "./command.js";

export class RunResult implements ExitStatus {
  readonly exitCode: number;
  readonly signal: string | null;
  readonly stdoutBytes: Buffer;
  /** Empty with a terminal, or merged. */
  readonly stderrBytes: Buffer;
  /** There was more output than was kept; the rest was dropped, and the command went on. */
  readonly truncated: boolean;

  constructor(status: ExitStatus, stdout: Buffer, stderr: Buffer, truncated: boolean) {
    this.exitCode = status.exitCode;
    this.signal = status.signal;
    this.stdoutBytes = stdout;
    this.stderrBytes = stderr;
    this.truncated = truncated;
  }

  /** It has exited with 0. */
  get ok(): boolean {
    return this.exitCode === 0 && this.signal === null;
  }

  /** As UTF-8. */
  get stdout(): string {
    return this.stdoutBytes.toString("utf8");
  }

  /** As UTF-8. */
  get stderr(): string {
    return this.stderrBytes.toString("utf8");
  }
}
