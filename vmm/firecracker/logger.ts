// The log, line by line as Firecracker writes it: to a file or FIFO, or to standard output. A line that a FIFO does not take is lost,
// and counted.
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { asFault } from "./host-paths.js";
import type { Logger as LoggerSection } from "./sections.js";

const STDOUT = 1;
const LEVELS = ["off", "error", "warn", "info", "debug", "trace"] as const;
export type LogLevel = Exclude<(typeof LEVELS)[number], "off">;

/** Opens a file or FIFO for what is written by and by; it never waits for a reader. Throws Fault. */
export function openForLines(path: string, what: string): number {
  try {
    const { O_RDWR, O_CREAT, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants;
    // For reading, too: a FIFO then takes lines that nobody reads yet.
    return openSync(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY, 0o644);
  } catch (error) {
    throw asFault(error, `${what} ${path}`);
  }
}

export class Logger {
  /** Lines that could not be written. */
  missed = 0;
  readonly #id: string;
  /** First line of each file. */
  readonly #greeting: string;
  #fd: number | undefined;
  #level: number = LEVELS.indexOf("info");
  #showsLevel = false;
  #showsOrigin = false;
  #module = "";

  constructor(id: string, greeting: string) {
    this.#id = id;
    this.#greeting = greeting;
  }

  /** Throws Fault, and is as before then. */
  configure({ log_path, level, show_level, show_log_origin, module }: LoggerSection): void {
    const fd = typeof log_path === "string" ? openForLines(log_path, "Logger: log_path") : undefined;
    const name = (level ?? "info").toLowerCase();
    this.#level = LEVELS.indexOf((name === "warning" ? "warn" : name) as LogLevel);
    this.#showsLevel = show_level ?? this.#showsLevel;
    this.#showsOrigin = show_log_origin ?? this.#showsOrigin;
    this.#module = module ?? this.#module;
    if (fd === undefined) return;
    this.close();
    this.#fd = fd;
    this.#write(`${this.#greeting}\n`);
  }

  log(level: LogLevel, message: string, origin = "vmm/firecracker"): void {
    if (LEVELS.indexOf(level) > this.#level || !origin.startsWith(this.#module)) return;
    const shown = this.#showsLevel ? `:${level.toUpperCase()}` : "";
    const from = this.#showsOrigin ? `:${origin}` : "";
    // Who writes the message may have it from a client: a line is one.
    const line = message.replace(/[\r\n]+/g, " ");
    this.#write(`${timestamp()} [${this.#id}:main${shown}${from}] ${line}\n`);
  }

  /** What comes from now on goes to standard output. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #write(text: string): void {
    try {
      writeSync(this.#fd ?? STDOUT, text);
    } catch {
      this.missed++;
    }
  }
}

/** Local time to a nanosecond's digits, as Firecracker has it. */
function timestamp(): string {
  const now = new Date();
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${String(now.getFullYear())}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  const time = `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`;
  return `${day}T${time}.${String(now.getMilliseconds()).padStart(3, "0")}000000`;
}
