// The log, as runc has it: lines of logrus, as text or JSON, in the file of --log or on standard error. What ends a command
// stands on standard error as well.
import { appendFileSync } from "node:fs";
import { VmmError } from "../errors.js";
import { sayRaw } from "../host/say.js";
import type { GlobalOptions } from "./command-line.js";

type Level = "debug" | "warning" | "error";

/** In one line. */
export function messageOf(error: unknown): string {
  if (error instanceof VmmError) {
    const cure = error.cure === undefined ? "" : ` (what helps: ${error.cure})`;
    return `${error.message.replaceAll("\n", "; ")}${cure}`;
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

export class Log {
  readonly #options: Pick<GlobalOptions, "log" | "logFormat" | "isDebug">;

  constructor(options: Pick<GlobalOptions, "log" | "logFormat" | "isDebug">) {
    this.#options = options;
  }

  debug(message: string): void {
    if (this.#options.isDebug) this.#write("debug", message);
  }

  warn(message: string): void {
    this.#write("warning", message);
  }

  /** Of the error that ends this command. */
  fail(message: string): void {
    this.#write("error", message);
    if (this.#options.log !== undefined) sayRaw(`${message}\n`);
  }

  #write(level: Level, message: string): void {
    const time = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    const line =
      this.#options.logFormat === "json"
        ? JSON.stringify({ level, msg: message, time })
        : `time=${JSON.stringify(time)} level=${level} msg=${JSON.stringify(message)}`;
    if (this.#options.log === undefined) {
      sayRaw(`${line}\n`);
      return;
    }
    try {
      appendFileSync(this.#options.log, `${line}\n`);
    } catch {
      sayRaw(`${line}\n`);
    }
  }
}
