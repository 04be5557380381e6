// --metrics FILE: what a running VM has used so far, one line of JSON a second and one at the end.
import { closeSync, openSync, readSync } from "node:fs";
import type { BalloonReport } from "../virtio/device-host.js";
import type { VmStatistics } from "../machine/vm-exit.js";
import { say } from "../host/say.js";
import { OutputFile } from "./output-file.js";
import { deviceCounters, type DeviceCounters } from "./report.js";

const INTERVAL_MS = 1000;
const STATM_BYTES = 256;
const PAGE_BYTES = 4096;
/** What every file of ours begins with. */
export const METRICS_BEGIN = '{"time_ms":';

/** A line of the file. Counters only grow. */
export interface MetricsLine {
  /** Since the start of the process. */
  readonly time_ms: number;
  /** Of the whole process: what the guest has touched of its RAM, and the monitor. */
  readonly memory_resident_bytes: number;
  /** Processor time of the whole process, guest included. */
  readonly cpu_ms: number;
  /** Lines before this one that could not be written. */
  readonly lost_lines: number;
  /** "ended" on the last line. */
  readonly state: "running" | "ended";
  readonly exits: VmStatistics["exits"];
  readonly devices: DeviceCounters;
  /** Null without a balloon. */
  readonly balloon: BalloonMetrics | null;
}

/** The guest's memory; what the guest has not told is null. */
export interface BalloonMetrics {
  readonly target_bytes: number;
  readonly actual_bytes: number;
  readonly guest_total_bytes: number | null;
  readonly guest_available_bytes: number | null;
  readonly guest_free_bytes: number | null;
  readonly guest_cache_bytes: number | null;
}

export class MetricsFile {
  readonly #file: OutputFile;
  readonly #path: string;
  readonly #read: () => VmStatistics;
  readonly #timer: NodeJS.Timeout;
  /** Open from the beginning: a sealed process opens nothing later. */
  readonly #statm = openSync("/proc/self/statm", "r");
  #lastLine: string | undefined;

  /** `returns` where lines on standard error need a carriage return. */
  constructor(path: string, read: () => VmStatistics, returns = false) {
    this.#path = path;
    this.#read = read;
    this.#file = new OutputFile(path, {
      failed: (why) => {
        say(`--metrics ${path}: cannot be written: ${why}; the guest goes on, later lines are tried`, { returns });
      },
    });
    this.#timer = setInterval(() => this.#file.write(this.#line("running")), INTERVAL_MS).unref();
  }

  /** Takes the last line's figures, which a VM has as long as its devices are open. */
  end(): string {
    clearInterval(this.#timer);
    return (this.#lastLine ??= this.#line("ended"));
  }

  /** Writes the last line. */
  async close(): Promise<void> {
    await this.#file.close(this.end());
    closeSync(this.#statm);
    const { lost } = this.#file;
    if (lost > 0) say(`--metrics ${this.#path}: ${String(lost)} lines are lost`);
  }

  /** proc(5), "/proc/pid/statm": the second number, in pages. */
  #residentBytes(): number {
    const text = Buffer.alloc(STATM_BYTES);
    const length = readSync(this.#statm, text, 0, STATM_BYTES, 0);
    return PAGE_BYTES * Number(text.toString("latin1", 0, length).split(" ")[1] ?? 0);
  }

  #line(state: MetricsLine["state"]): string {
    const { user, system } = process.cpuUsage();
    const { exits, devices, balloon } = this.#read();
    const line: MetricsLine = {
      time_ms: Math.round(performance.now()),
      memory_resident_bytes: this.#residentBytes(),
      cpu_ms: Math.round((user + system) / 1000),
      lost_lines: this.#file.lost,
      state,
      exits,
      devices: deviceCounters(devices),
      balloon: balloon === undefined ? null : balloonMetrics(balloon),
    };
    return `${JSON.stringify(line)}\n`;
  }
}

function balloonMetrics({ targetBytes, actualBytes, guest = {} }: BalloonReport): BalloonMetrics {
  return {
    target_bytes: targetBytes,
    actual_bytes: actualBytes,
    guest_total_bytes: guest.totalMemory ?? null,
    guest_available_bytes: guest.availableMemory ?? null,
    guest_free_bytes: guest.freeMemory ?? null,
    guest_cache_bytes: guest.diskCaches ?? null,
  };
}
