// `vmlet stats FILE`: the newest line of a metrics file as a table, with what happened a second.
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { parseStats } from "./arguments.js";
import { UsageError } from "./usage-error.js";
import type { MetricsLine } from "./metrics.js";
import { print } from "../host/say.js";

/** `bytes` of the file's end that are looked at: two lines and more, whatever the devices. */
const TAIL_BYTES = 64 * 1024;
const FOLLOW_MS = 1000;
/** A vmlet that has just been started has not made the file yet, `ms`. */
const START_MS = 10_000;
/** Between the last line of a guest and the next look, `ms`. */
const GONE_MS = 2000;
const MIB = 2 ** 20;

export interface Stats {
  readonly line: MetricsLine;
  /** The line before it; without one, rates are since the start. */
  readonly previous: MetricsLine | undefined;
}

export async function stats(argv: readonly string[]): Promise<number> {
  const { help, json, follow, file } = parseStats(argv);
  if (help || file === undefined) {
    const { STATS_HELP } = await import("./help.js");
    print(STATS_HELP);
    return 0;
  }
  if (!follow) {
    const { stats: latest } = readStats(file);
    // A guest that has just started has not written anything yet.
    if (latest === undefined) throw new HostError(`${file}: holds no line of metrics yet`);
    print(json ? asJson(latest) : table(latest));
    return 0;
  }
  await followStats(file, json);
  return 0;
}

function asJson(latest: Stats): string {
  return `${JSON.stringify({ ...latest.line, per_second: rates(latest) })}\n`;
}

/** Until the guest, or the vmlet that writes the file, has ended. */
async function followStats(path: string, json: boolean): Promise<void> {
  const { isByteLocked } = await import("../sys/locks.js");
  const { WRITER_LOCK_BYTE } = await import("./output-file.js");
  const { timeLimit } = await import("../host/time-limit.js");
  const waitMs = timeLimit("the start of a guest", START_MS);
  let shownMs = -1;
  let sinceSign = performance.now();
  for (;;) {
    const { stats: latest, isWritten } = isThere(path)
      ? readStats(path, (fd) => isByteLocked(fd, WRITER_LOCK_BYTE))
      : { stats: undefined, isWritten: false };
    if (latest !== undefined && latest.line.time_ms !== shownMs) {
      if (!json && shownMs >= 0) print("\n");
      shownMs = latest.line.time_ms;
      print(json ? asJson(latest) : table(latest));
    }
    if (latest?.line.state === "ended") return;
    const now = performance.now();
    if (isWritten) sinceSign = now;
    else if (latest !== undefined && now - sinceSign > GONE_MS) {
      throw new HostError(`${path}: its last line is of a guest that runs, and nobody writes it any more`, {
        cure: "the vmlet that wrote it was killed",
      });
    } else if (now - sinceSign > waitMs) {
      throw new HostError(`${path}: no guest writes metrics to it`, {
        cure: "give the FILE of vmlet boot --metrics FILE",
      });
    }
    await sleep(FOLLOW_MS);
  }
}

/** True, too, for a path with which something is wrong: readStats says what. */
function isThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return true;
  }
}

interface StatsFile {
  /** The last complete lines; undefined if there is none. */
  readonly stats: Stats | undefined;
  readonly isWritten: boolean;
}

function readStats(path: string, isWritten: (fd: number) => boolean = () => false): StatsFile {
  const wrong = (why: string, cause?: unknown): never => {
    throw new HostError(`${path}: ${why}`, { cause, cure: "give the FILE of vmlet boot --metrics FILE" });
  };
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO by mistake is refused below instead of waited for.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return wrong(`cannot be read: ${errnoText((error as NodeJS.ErrnoException).code ?? "")}`, error);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return wrong(stat.isDirectory() ? "a folder" : "not a regular file");
    const tail = Buffer.alloc(Math.min(stat.size, TAIL_BYTES));
    const length = readSync(fd, tail, 0, tail.length, stat.size - tail.length);
    return { stats: parseTail(tail.toString("utf8", 0, length), path), isWritten: isWritten(fd) };
  } finally {
    closeSync(fd);
  }
}

/** Exported for tests. The first line of a tail may be cut off, the last one not yet complete. */
export function parseTail(text: string, path: string): Stats | undefined {
  const [first, second] = text
    .split("\n")
    .slice(0, -1)
    .slice(-2)
    .map((line) => {
      const parsed = parseLine(line);
      if (parsed === undefined) throw new UsageError(`vmlet stats: ${path} is not a file of vmlet boot --metrics`);
      return parsed;
    });
  if (first === undefined) return undefined;
  return second === undefined ? { line: first, previous: undefined } : { line: second, previous: first };
}

/** Undefined if the text is not a line of metrics. */
function parseLine(text: string): MetricsLine | undefined {
  let line: unknown;
  try {
    line = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isMetricsLine(line) ? line : undefined;
}

function isMetricsLine(line: unknown): line is MetricsLine {
  if (!isRecord(line)) return false;
  const { time_ms, memory_resident_bytes, cpu_ms, state, exits, devices, balloon } = line;
  return (
    [time_ms, memory_resident_bytes, cpu_ms].every((value) => typeof value === "number") &&
    (state === "running" || state === "ended") &&
    areCounters(exits) &&
    isRecord(devices) &&
    Object.values(devices).every(areCounters) &&
    (balloon === null || isBalloon(balloon))
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function areCounters(value: unknown): boolean {
  return isRecord(value) && Object.values(value).every((count) => typeof count === "number");
}

function isBalloon(value: unknown): boolean {
  if (!isRecord(value)) return false;
  const { target_bytes, actual_bytes, ...guest } = value;
  return (
    typeof target_bytes === "number" &&
    typeof actual_bytes === "number" &&
    Object.values(guest).every((bytes) => bytes === null || typeof bytes === "number")
  );
}

/** Rates of the last interval, under the names of the totals. */
interface Rates {
  /** Percent of one core, guest included. */
  readonly cpu_percent: number;
  readonly exits: Readonly<Record<string, number>>;
  readonly devices: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

export function rates({ line, previous }: Stats): Rates {
  const seconds = Math.max(line.time_ms - (previous?.time_ms ?? 0), 1) / 1000;
  const perSecond = (
    now: Readonly<Record<string, number>>,
    before: Readonly<Record<string, number>> = {},
  ): Record<string, number> =>
    Object.fromEntries(
      Object.entries(now).map(([name, count]) => [name, round((count - (before[name] ?? 0)) / seconds)]),
    );
  return {
    cpu_percent: round((line.cpu_ms - (previous?.cpu_ms ?? 0)) / seconds / 10),
    exits: perSecond(line.exits, previous?.exits),
    devices: Object.fromEntries(
      Object.entries(line.devices).map(([name, counters]) => [name, perSecond(counters, previous?.devices[name])]),
    ),
  };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

export function table(stats: Stats): string {
  const { line } = stats;
  const { cpu_percent, exits, devices } = rates(stats);
  const rows: string[][] = [
    ["state", line.state, `after ${(line.time_ms / 1000).toFixed(1)} s`],
    ["memory", mib(line.memory_resident_bytes), "resident"],
    ...balloonRows(line),
    ["cpu", `${String(cpu_percent)} %`, "of a core"],
    [],
    ["", "total", "per second"],
    ...Object.entries(line.exits).map(([name, count]) => [`exits ${name}`, String(count), String(exits[name] ?? 0)]),
    ...Object.entries(line.devices).flatMap(([device, counters]) =>
      Object.entries(counters)
        .filter(([, count]) => count > 0)
        .map(([name, count]) => [`${device} ${name}`, String(count), String(devices[device]?.[name] ?? 0)]),
    ),
  ];
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const text = rows.map(([name = "", value = "", rest = ""]) =>
    `${name.padEnd(widths[0] ?? 0)}  ${value.padStart(widths[1] ?? 0)}  ${rest}`.trimEnd(),
  );
  return `${text.join("\n")}\n`;
}

function balloonRows({ balloon }: MetricsLine): string[][] {
  if (balloon === null) return [];
  const { guest_available_bytes: available, guest_total_bytes: total } = balloon;
  return [
    ["balloon", mib(balloon.actual_bytes), `given up, of ${mib(balloon.target_bytes)} asked for`],
    ...(available === null || total === null ? [] : [["guest", mib(available), `available, of ${mib(total)}`]]),
  ];
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}
