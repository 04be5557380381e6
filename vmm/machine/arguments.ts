// Checks the arguments of a VM's methods before they are used: a caller in JavaScript, or one that passes
// data on, gets an error that names the wrong argument, and the VM does not change.
import { integerProblem } from "../config/check.js";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import type { VmHost } from "./host-callbacks.js";

/** How the vCPUs get their threads. */
export interface StartOptions {
  /**
   * "main-first" runs vCPU 0 on the calling thread until the guest's init is up, which spares
   * a thread's start-up before the first KVM_RUN but blocks the event loop for that long.
   * "threads", the default, keeps the event loop free from the beginning.
   */
  readonly threads?: "main-first" | "threads" | undefined;
}

/** Of a terminal, in characters. */
export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** virtio 1.2 §5.3.4: cols and rows are 16 bits wide. */
const MAX_TERMINAL = 0xffff;
const CALLBACKS = [
  ...(["output", "inputRoom", "initStarted", "commandOutput", "commandError", "commandStarted"] as const),
  ...(["commandRoom", "snapshotPoint", "log"] as const),
];
const THREADS: readonly unknown[] = ["main-first", "threads"];

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new ConfigError(problems);
}

export function checkVmHost(host: unknown): asserts host is VmHost {
  if (!isObject(host)) throw new ConfigError([`Host ${show(host)} is not an object with a function output`]);
  const problems: string[] = [];
  for (const name of CALLBACKS) {
    const value = host[name];
    if (typeof value === "function" || (value === undefined && name !== "output")) continue;
    problems.push(`Host: ${name} ${show(value)} is not a function`);
  }
  refuse(problems);
}

export function startThreads(options: unknown): "main-first" | "threads" {
  if (options === undefined) return "threads";
  if (!isObject(options)) throw new ConfigError([`Start options ${show(options)} are not an object`]);
  const problems = Object.keys(options)
    .filter((key) => key !== "threads")
    .map((key) => `Start options: unknown option ${JSON.stringify(key)}; known is threads`);
  const threads = options["threads"] ?? "threads";
  if (!THREADS.includes(threads)) {
    problems.push(`Start options: threads ${show(threads)} is not one of ${THREADS.join(", ")}`);
  }
  refuse(problems);
  return threads === "main-first" ? "main-first" : "threads";
}

export function checkBytes(bytes: unknown): asserts bytes is Uint8Array {
  if (bytes instanceof Uint8Array) return;
  throw new ConfigError([`Input ${show(bytes)} is not a Uint8Array`]);
}

/** A copy, which the caller cannot change after the check. */
export function checkSize(size: unknown): TerminalSize {
  if (!isObject(size)) throw new ConfigError([`Terminal size ${show(size)} is not an object with columns and rows`]);
  const { columns, rows } = size;
  const limits = { minimum: 0, maximum: MAX_TERMINAL };
  refuse(
    Object.entries({ columns, rows }).flatMap(
      ([name, value]) => integerProblem(`Terminal size: ${name}`, value, limits) ?? [],
    ),
  );
  return { columns: Number(columns), rows: Number(rows) };
}
