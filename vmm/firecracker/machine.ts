// The part of the program that runs guests: loaded while nobody waits for it. Console, boot timer, metrics of the guest.
import { openSync, constants } from "node:fs";
import { TokenBucket } from "../../devices/virtio/rate-limiter.js";
import { VmmError } from "../errors.js";
import { nowMs } from "../host/clock.js";
import { OutputWriter } from "../host/standard-output.js";
import type { VmHost } from "../machine/host-callbacks.js";
import type { VmStatistics } from "../machine/vm-exit.js";
import { asFault } from "./host-paths.js";
import type { Feature, HeldGuest } from "./guest.js";
import { KvmStarter } from "./instance.js";
import type { LabStarter } from "./lab-starter.js";
import type { Logger } from "./logger.js";
import type { Counts, MetricsWriter } from "./metrics.js";
import type { Section } from "./sections.js";
import type { Settings } from "./settings.js";
import { isGiven } from "./settings.js";
import { tokenBucket } from "./vm-config.js";

const STDOUT = 1;

export interface MachineOptions {
  readonly logger: Logger;
  readonly metrics: MetricsWriter;
  openInput(input: (bytes: Uint8Array) => number): { resume(): void; close(): void };
  readonly hasBootTimer: boolean;
}

export class Machine {
  readonly #options: MachineOptions;
  readonly #kvm: KvmStarter;
  /** The same, or the lab's where there is no KVM. */
  #starter: KvmStarter | LabStarter | undefined;
  #writer = new OutputWriter(STDOUT, { vanished: () => undefined, failed: () => undefined });
  #limiter: TokenBucket | undefined;
  #input: { resume(): void; close(): void } | undefined;
  #guest: HeldGuest | undefined;
  #metadata: () => unknown = () => undefined;
  #isStarting = false;
  #startedNs = 0n;
  #startedCpuUs = 0;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.#kvm = new KvmStarter({ host: this.#host() });
  }

  async warmUp(vcpus: number): Promise<void> {
    await (await this.#place()).warmUp(vcpus);
  }

  /** Does what can be done of a start with what is configured so far. Never throws. */
  prepare(settings: Settings): void {
    const isOnKvm = this.#starter === undefined || this.#starter === this.#kvm;
    if (isOnKvm && !this.#isStarting && this.#guest === undefined) this.#kvm.prepare(settings);
  }

  /** Rejects with Fault for what a guest cannot have here. */
  async check(feature: Feature): Promise<void> {
    const starter = await this.#place();
    if ("check" in starter) starter.check(feature);
  }

  start(settings: Settings): Promise<HeldGuest> {
    return this.#make(settings, (starter) => starter.start(settings));
  }

  load(params: Section<"SnapshotLoadParams">, settings: Settings): Promise<HeldGuest> {
    return this.#make(settings, (starter) => starter.load(params, settings));
  }

  async #make(
    settings: Settings,
    make: (starter: KvmStarter | LabStarter) => HeldGuest | Promise<HeldGuest>,
  ): Promise<HeldGuest> {
    this.#isStarting = true;
    try {
      this.#markStart();
      this.#metadata = () => settings.mmds.value;
      const openSerial = this.#serial(settings);
      const guest = await make(this.#starter ?? (await this.#place()));
      openSerial();
      return this.#begin(guest);
    } finally {
      this.#isStarting = false;
    }
  }

  /** Ends the guest, if it runs, and lets go of what its devices hold on the host. */
  async close(limitMs: number): Promise<void> {
    this.#kvm.drop();
    this.#input?.close();
    const guest = this.#guest;
    if (guest === undefined) return;
    guest.stop();
    let timer: NodeJS.Timeout | undefined;
    const isOver = await Promise.race([
      guest.ended.then(
        () => true,
        () => true,
      ),
      new Promise<false>((resolve) => (timer = setTimeout(resolve, limitMs, false))),
    ]);
    clearTimeout(timer);
    if (isOver) guest.closeDevices();
  }

  /** Where guests run: found out once. */
  async #place(): Promise<KvmStarter | LabStarter> {
    if (this.#starter !== undefined) return this.#starter;
    try {
      this.#kvm.probe();
      return (this.#starter = this.#kvm);
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      const { LabStarter } = await import("./lab-starter.js");
      return (this.#starter = new LabStarter(this.#host(), error));
    }
  }

  #begin(guest: HeldGuest): HeldGuest {
    this.#guest = guest;
    this.#options.metrics.follow(() => guestCounts(guest.statistics()));
    this.#input = this.#options.openInput((bytes) => guest.input(bytes));
    return guest;
  }

  #markStart(): void {
    this.#startedNs = process.hrtime.bigint();
    const { user, system } = process.cpuUsage();
    this.#startedCpuUs = user + system;
  }

  /** Opens where the console's output goes, now; the result has it go there. Throws Fault. */
  #serial({ serial }: Settings): () => void {
    const path = serial?.serial_out_path;
    const bucket = serial?.rate_limiter;
    const limits = isGiven(bucket) ? tokenBucket(bucket) : undefined;
    const fd = isGiven(path) ? openSerialOutput(path) : STDOUT;
    return () => {
      if (fd !== STDOUT) this.#writer = new OutputWriter(fd, { vanished: () => undefined, failed: () => undefined });
      const isLimited = limits !== undefined && limits.size > 0 && limits.refillTimeMs > 0;
      this.#limiter = isLimited ? new TokenBucket(limits, nowMs()) : undefined;
    };
  }

  #host(): VmHost {
    return {
      output: (bytes, done) => {
        this.#output(bytes, done);
      },
      metadata: () => this.#metadata(),
      inputRoom: () => this.#input?.resume(),
      log: (line) => {
        this.#options.logger.log("warn", line);
      },
      ...(this.#options.hasBootTimer ? { initStarted: (timeNs: bigint) => this.#logBootTime(timeNs) } : {}),
    };
  }

  #output(bytes: Uint8Array, done: () => void): void {
    const wait = this.#limiter?.waitMs(bytes.length, nowMs()) ?? 0;
    if (wait > 0) {
      setTimeout(() => {
        this.#output(bytes, done);
      }, wait);
      return;
    }
    this.#limiter?.take(bytes.length);
    this.#writer.write(bytes, done);
  }

  #logBootTime(timeNs: bigint): void {
    const us = Number((timeNs - this.#startedNs) / 1000n);
    const { user, system } = process.cpuUsage();
    const cpuUs = user + system - this.#startedCpuUs;
    const times = `${String(us)} us ${String(Math.round(us / 1000))} ms, ${String(cpuUs)} CPU us ${String(Math.round(cpuUs / 1000))} CPU ms`;
    this.#options.logger.log("info", `Guest-boot-time = ${times}`);
  }
}

function openSerialOutput(path: string): number {
  try {
    const { O_RDWR, O_CREAT, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants;
    return openSync(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY, 0o644);
  } catch (error) {
    throw asFault(error, `Serial device: serial_out_path ${path}`);
  }
}

/** In Firecracker's groups and names, as far as ours mean the same. */
function guestCounts({ exits, devices }: Pick<VmStatistics, "exits" | "devices">): Counts {
  const counts: Record<string, Record<string, number>> = {
    vcpu: {
      exit_io_in: exits["io"] ?? 0,
      exit_mmio_read: exits["mmio"] ?? 0,
    },
  };
  for (const [name, counters] of Object.entries(devices)) {
    const group = /^vd[a-z]$/.test(name) ? "block" : name.replace(/\d+$/, "");
    const into = (counts[group] ??= {});
    for (const [counter, count] of Object.entries(counters)) into[counter] = (into[counter] ?? 0) + count;
  }
  return counts;
}
