// --metrics FILE: what a running VM has used so far, one line of JSON a second and one at the end.
import { closeSync, openSync, writeSync } from "node:fs";
import type { VmStatistics } from "../vm-exit.js";
import { deviceCounters, type DeviceCounters } from "./report.js";

const INTERVAL_MS = 1000;

/** A line of the file. Counters only grow. */
export interface MetricsLine {
  /** Since the start of the process. */
  readonly time_ms: number;
  /** Of the whole process: what the guest has touched of its RAM, and the monitor. */
  readonly memory_resident_bytes: number;
  /** Processor time of the whole process, guest included. */
  readonly cpu_ms: number;
  readonly exits: VmStatistics["exits"];
  readonly devices: DeviceCounters;
}

export class MetricsFile {
  readonly #fd: number;
  readonly #read: () => VmStatistics;
  readonly #timer: NodeJS.Timeout;

  /** Throws if the file cannot be written. */
  constructor(path: string, read: () => VmStatistics) {
    this.#fd = openSync(path, "w");
    this.#read = read;
    this.#timer = setInterval(() => this.#write(), INTERVAL_MS).unref();
  }

  /** Writes the last line. */
  close(): void {
    clearInterval(this.#timer);
    this.#write();
    closeSync(this.#fd);
  }

  #write(): void {
    const { user, system } = process.cpuUsage();
    const { exits, devices } = this.#read();
    const line: MetricsLine = {
      time_ms: Math.round(performance.now()),
      memory_resident_bytes: process.memoryUsage.rss(),
      cpu_ms: Math.round((user + system) / 1000),
      exits,
      devices: deviceCounters(devices),
    };
    writeSync(this.#fd, `${JSON.stringify(line)}\n`);
  }
}
