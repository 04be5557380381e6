// `vmlet stats FILE`: the newest line of a metrics file as a table, with what happened a second.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { HostError } from "../errors.js";
import { parseStats } from "./arguments.js";
import { UsageError } from "./usage-error.js";
import type { MetricsLine } from "./metrics.js";
import { print } from "../host/say.js";

/** `bytes` of the file's end that are looked at: two lines and more, whatever the devices. */
const TAIL_BYTES = 64 * 1024;
const FOLLOW_MS = 1000;
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
  let shownMs = -1;
  for (;;) {
    const latest = readStats(file);
    // A guest that has just started has not written anything yet.
    if (latest === undefined && !follow) throw new HostError(`${file}: holds no line of metrics yet`);
    if (latest !== undefined && latest.line.time_ms !== shownMs) {
      if (!json && shownMs >= 0) print("\n");
      shownMs = latest.line.time_ms;
      print(json ? `${JSON.stringify({ ...latest.line, per_second: rates(latest) })}\n` : table(latest));
    }
    if (!follow || latest?.line.state === "ended") return 0;
    await sleep(FOLLOW_MS);
  }
}

/** The last complete lines; undefined if there is none. */
function readStats(path: string): Stats | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw new HostError(`${path}: cannot be read`, {
      cause: error,
      cure: "give the FILE of vmlet boot --metrics FILE",
    });
  }
  try {
    const { size } = fstatSync(fd);
    const tail = Buffer.alloc(Math.min(size, TAIL_BYTES));
    const length = readSync(fd, tail, 0, tail.length, size - tail.length);
    return parseTail(tail.toString("utf8", 0, length), path);
  } finally {
    closeSync(fd);
  }
}

/** Exported for tests. The first line of a tail may be cut off, the last one not yet complete. */
export function parseTail(text: string, path: string): Stats | undefined {
  const lines = text.split("\n").slice(0, -1).slice(-2);
  const parsed = lines.map((line) => {
    try {
      return JSON.parse(line) as MetricsLine;
    } catch {
      throw new UsageError(`vmlet stats: ${path} is not a file of vmlet boot --metrics`);
    }
  });
  const line = parsed.at(-1);
  return line === undefined ? undefined : { line, previous: parsed.length > 1 ? parsed[0] : undefined };
}

/** What happened each second of late, under the names of the totals. */
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
