// What the process of a VM and the one that has started it tell each other: lines of JSON, by a pipe each way.
import {
  ConfigError,
  ERROR_CODES,
  ExecError,
  HostError,
  VmmError,
  type ErrorCode,
  type ExecFailure,
} from "../errors.js";
import type { VmSpec } from "./vm-spec.js";

/** Descriptor at which the VM's process tells how far it is. */
export const REPORT_FD = 3;

/** On standard input, first and once. */
export interface MonitorOrder {
  readonly spec: VmSpec;
  /** The VM ends when standard input does: with the process that has started it. */
  readonly isBound: boolean;
  /** The VM's own program waits for somebody who attaches; if standard input ends before that, the VM does. */
  readonly waitsForAttach: boolean;
  /** What its own program writes is kept. */
  readonly keepsLog: boolean;
  /** Goes on from this snapshot of a VM of the same kind, in place of a template. */
  readonly snapshot?: string;
}

export type MonitorReport =
  /** A line for whoever waits. */
  | { readonly notice: string }
  /** It takes as long as a boot. */
  | { readonly boots: true }
  | { readonly ready: { readonly id: string; readonly restored: boolean } }
  | { readonly failed: FailureReport };

export interface FailureReport {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly problems?: readonly string[] | undefined;
  readonly cure?: string | undefined;
  /** Of a program that could not be run. */
  readonly exec?: ExecFailure | undefined;
}

export function failureOf(error: unknown): FailureReport {
  if (error instanceof ConfigError) return { code: error.code, message: error.message, problems: error.problems };
  if (error instanceof ExecError) {
    const { code, message, cure, command, exitCode, signal, errnoName } = error;
    return { code, message, cure, exec: { command, exitCode, signal, errnoName } };
  }
  if (error instanceof VmmError) return { code: error.code, message: error.message, cure: error.cure };
  return { code: undefined, message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

/** Throws HostError for a line that is none: the process that wrote it serves a guest, and may be in its hands. */
export function readReport(line: string): MonitorReport {
  const report = objectOf(line);
  if (report !== undefined) {
    if (typeof report["notice"] === "string") return { notice: report["notice"] };
    if (report["boots"] === true) return { boots: true };
    const ready = report["ready"] as Partial<Record<string, unknown>> | null | undefined;
    const { id, restored } = ready ?? {};
    if (typeof id === "string" && typeof restored === "boolean") return { ready: { id, restored } };
    if ("failed" in report) return { failed: checkFailure(report["failed"]) };
  }
  throw notAReport();
}

/** The same of a failure alone. */
export function readFailure(text: string): FailureReport {
  return checkFailure(objectOf(text));
}

/** Undefined for what is no JSON, or another value than an object or a list. */
export function objectOf(text: string): Readonly<Record<string, unknown>> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : undefined;
}

function checkFailure(value: unknown): FailureReport {
  if (typeof value !== "object" || value === null) throw notAReport();
  const { code, message, problems, cure, exec } = value as Readonly<Record<string, unknown>>;
  const isText = (one: unknown): boolean => one === undefined || typeof one === "string";
  const isList = Array.isArray(problems) && problems.every((problem) => typeof problem === "string");
  const isExec = typeof exec === "object" && exec !== null && Array.isArray((exec as Partial<ExecFailure>).command);
  if (typeof message !== "string" || !isText(code) || !isText(cure)) throw notAReport();
  if ((problems !== undefined && !isList) || (exec !== undefined && !isExec)) throw notAReport();
  return value as FailureReport;
}

function notAReport(): HostError {
  return new HostError("The VM's process has said what none says");
}

/** As it was thrown in the other process, as far as it has a code. */
export function errorOf({ code, message, problems, cure, exec }: FailureReport): Error {
  if (problems !== undefined) return new ConfigError(problems);
  if (exec !== undefined) return new ExecError(message, exec, { cure });
  if (code === undefined || !ERROR_CODES.includes(code)) return new Error(message);
  return new VmmError(code, message, { cure });
}

/** Cuts a stream of text into lines, each at most `limit` characters. */
export class LineReader {
  readonly #line: (text: string) => void;
  readonly #limit: number;
  #text = "";

  constructor(line: (text: string) => void, limit: number) {
    this.#line = line;
    this.#limit = limit;
  }

  push(text: string): void {
    this.#text += text;
    for (let end; (end = this.#text.indexOf("\n")) >= 0;) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      this.#line(line);
    }
    if (this.#text.length > this.#limit) this.#text = "";
  }
}
