// Metrics, a line of JSON each time, in Firecracker's groups and names as far as there is something to count here: counts are those
// since the line before.
import { closeSync, writeSync } from "node:fs";
import { Fault } from "./fault.js";
import { openForLines, type Logger } from "./logger.js";
import type { Metrics } from "./sections.js";

export const METRICS_INTERVAL_MS = 60_000;

/** Counts by group and name. */
export type Counts = Readonly<Record<string, Readonly<Record<string, number>>>>;

export class MetricsWriter {
  readonly #logger: Logger;
  #fd: number | undefined;
  #extra: Readonly<Record<string, unknown>> = {};
  readonly #counts = new Map<string, Map<string, number>>();
  /** Of the guest, since its start. */
  #guest: () => Counts = () => ({});
  #guestBefore: Counts = {};

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Throws Fault, and is as before then. */
  configure({ metrics_path: path, emit_id: hasId, properties }: Metrics, id: string): void {
    if (this.#fd !== undefined) throw new Fault("Metrics: they have a file already");
    const fd = openForLines(path, "Metrics: metrics_path");
    this.#fd = fd;
    this.#extra = {
      ...(hasId === true ? { id } : {}),
      ...(properties === undefined || properties === null ? {} : { properties }),
    };
  }

  /** Later lines are lost. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** `read` answers what there was since the guest's start. */
  follow(read: () => Counts): void {
    this.#guest = read;
  }

  count(group: string, name: string, by = 1): void {
    const counts = this.#counts.get(group) ?? new Map<string, number>();
    this.#counts.set(group, counts.set(name, (counts.get(name) ?? 0) + by));
  }

  /** The value is the last one, not a sum. */
  store(group: string, name: string, value: number): void {
    const counts = this.#counts.get(group) ?? new Map<string, number>();
    this.#counts.set(group, counts.set(name, value));
  }

  /** Writes a line, if somebody wants one; what a FIFO does not take is lost. */
  flush(): void {
    if (this.#fd === undefined) return;
    try {
      writeSync(this.#fd, `${JSON.stringify(this.#line())}\n`);
      this.#counts.clear();
    } catch {
      this.count("logger", "missed_metrics_count");
    }
  }

  #line(): Readonly<Record<string, unknown>> {
    const groups = new Map(ALWAYS.map((group) => [group, new Map<string, number>()]));
    for (const [group, counts] of this.#counts) groups.set(group, new Map(counts));
    const now = this.#guest();
    for (const [group, counts] of Object.entries(now)) {
      const before = this.#guestBefore[group] ?? {};
      const into = groups.get(group) ?? new Map<string, number>();
      for (const [name, count] of Object.entries(counts)) into.set(name, count - (before[name] ?? 0));
      groups.set(group, into);
    }
    this.#guestBefore = now;
    groups.get("logger")?.set("missed_log_count", this.#logger.missed);
    this.#logger.missed = 0;
    return {
      utc_timestamp_ms: Date.now(),
      ...this.#extra,
      ...Object.fromEntries([...groups].map(([group, counts]) => [group, Object.fromEntries(counts)])),
    };
  }
}

/** Groups that a reader may look into without asking whether they are there. */
const ALWAYS = [
  "api_server",
  "balloon",
  "block",
  "deprecated_api",
  "entropy",
  "get_api_requests",
  "i8042",
  "latencies_us",
  "logger",
  "mmds",
  "net",
  "patch_api_requests",
  "put_api_requests",
  "signals",
  "uart",
  "vcpu",
  "vmm",
  "vsock",
];
