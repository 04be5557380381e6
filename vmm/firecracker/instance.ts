// The guests of this program: VMs of vmm/machine, made of a client's settings.
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import { diskName } from "../config/disks.js";
import type { ResolvedConfig } from "../config/types.js";
import { hostQuirks } from "../fixups/host-quirks.js";
import type { Quirks } from "../fixups/quirks.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { pool } from "../machine/threads.js";
import { Vm } from "../machine/vm.js";
import type { VmExit, VmStatistics } from "../machine/vm-exit.js";
import type { BalloonReport } from "../virtio/device-host.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { Fault, faultOf } from "./fault.js";
import type { Guest, HeldGuest, Starter } from "./guest.js";
import { Preparation, type Build } from "./preparation.js";
import type { Section } from "./sections.js";
import type { Settings } from "./settings.js";
import { cpuTemplateOpener } from "./templates.js";
import { rateLimiter, vmConfig } from "./vm-config.js";

export interface InstanceOptions {
  /** What the VM calls for its console and its problems. */
  readonly host: VmHost;
}

/** Makes guests on this host's KVM. */
export class KvmStarter implements Starter {
  readonly #options: InstanceOptions;
  readonly #preparation: Preparation;
  #quirks: { readonly value: Quirks | undefined } | undefined;

  constructor(options: InstanceOptions) {
    this.#options = options;
    this.#preparation = new Preparation((config, settings) => this.#getReady(config, settings));
  }

  /** Has done what a start would have to wait for; a host without a KVM says so when a guest is started. */
  async warmUp(vcpus: number): Promise<void> {
    try {
      this.probe();
      await pool.warm(vcpus);
    } catch {
      // It is tried again, and said, when it matters.
    }
  }

  prepare(settings: Settings): void {
    try {
      this.#preparation.prepare(vmConfig(settings, { isSoftwareKvm: this.probe() !== undefined }), settings);
    } catch {
      // Whatever is wrong is said when the guest is started.
      this.#preparation.drop();
    }
  }

  async start(settings: Settings): Promise<RunningGuest> {
    try {
      const quirks = this.probe();
      const config = vmConfig(settings, { isSoftwareKvm: quirks !== undefined });
      const build = await this.#getReady(config, settings);
      const { vm: built, bootMemory } = this.#preparation.take(config, settings);
      const vm = built ?? build({ bootMemory });
      const tracksPages = settings.machine.track_dirty_pages === true;
      if (tracksPages) (await import("./snapshots.js")).trackPages(vm);
      return new RunningGuest(vm, { isLoaded: false, tracksPages, release: () => undefined, settings });
    } catch (error) {
      throw faultOf(error, "The microVM cannot be started");
    }
  }

  async load(params: Section<"SnapshotLoadParams">, settings: Settings): Promise<RunningGuest> {
    try {
      this.#preparation.drop();
      const { loadSnapshot } = await import("./snapshots.js");
      const { vm, release } = await loadSnapshot(params, settings, { host: this.#options.host, quirks: this.probe() });
      return new RunningGuest(vm, {
        isLoaded: true,
        tracksPages: params.track_dirty_pages === true,
        release,
        settings,
      });
    } catch (error) {
      throw faultOf(error, "The snapshot cannot be loaded");
    }
  }

  /** Lets go of what has been made for a start. */
  drop(): void {
    this.#preparation.drop();
  }

  async #getReady(config: ResolvedConfig, settings: Settings): Promise<Build> {
    const deviceSupport = await loadDeviceSupport(config);
    const openCpuTemplate = await cpuTemplateOpener(config, settings);
    const known = { quirks: this.probe() };
    return ({ bootMemory }) =>
      Vm.build(config, this.#options.host, {
        known,
        deviceSupport,
        openCpuTemplate,
        bootMemory,
        hearsOwner: true,
        mayBeSaved: true,
      });
  }

  /** Throws HostError without a /dev/kvm that can be used. */
  probe(): Quirks | undefined {
    this.#quirks ??= { value: hostQuirks() };
    return this.#quirks.value;
  }
}

function withBalloon<Result>(task: () => Result): Result {
  try {
    return task();
  } catch (error) {
    throw faultOf(error, "Balloon");
  }
}

export interface GuestOptions {
  /** It goes on from a snapshot: it is paused until it is resumed. */
  readonly isLoaded: boolean;
  readonly tracksPages: boolean;
  /** After its end. */
  release(): void;
  /** What a snapshot of it carries for the process that loads it. */
  readonly settings: Settings;
}

export class RunningGuest implements HeldGuest {
  readonly ended: Promise<VmExit>;
  readonly #vm: Vm;
  readonly #options: GuestOptions;
  #end: (result: Promise<VmExit>) => void = () => undefined;
  #hasStarted = false;
  /** Id of the last snapshot of it, or that it was loaded from. */
  #last: string | undefined;

  constructor(vm: Vm, options: GuestOptions) {
    this.#vm = vm;
    this.#options = options;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    // Whoever waits for it hears of it.
    this.ended.catch(() => undefined);
    if (!options.isLoaded) this.#start();
  }

  get state(): Guest["state"] {
    return this.#hasStarted && this.#vm.state !== "paused" ? "Running" : "Paused";
  }

  #start(): void {
    this.#hasStarted = true;
    // Threads of their own from the beginning: the API is answered meanwhile.
    const ended = this.#vm.start({ threads: "threads" });
    this.#end(
      ended.finally(() => {
        this.#options.release();
      }),
    );
  }

  async pause(): Promise<void> {
    if (!this.#hasStarted) return;
    try {
      await this.#vm.pause();
    } catch (error) {
      throw faultOf(error, "The microVM cannot be paused");
    }
  }

  resume(): void {
    try {
      if (this.#hasStarted) this.#vm.resume();
      else this.#start();
    } catch (error) {
      throw faultOf(error, "The microVM cannot be resumed");
    }
  }

  updateDrive(index: number, update: Section<"PartialDrive">): void {
    try {
      const limiter = rateLimiter(update.rate_limiter);
      this.#vm.updateDisk(diskName(index), { path: update.path_on_host ?? undefined, rateLimiter: limiter });
    } catch (error) {
      throw faultOf(error, `Drive ${update.drive_id}`);
    }
  }

  updateNet(index: number, update: Section<"PartialNetworkInterface">): void {
    try {
      this.#vm.updateNet(`net${String(index)}`, {
        rxRateLimiter: rateLimiter(update.rx_rate_limiter),
        txRateLimiter: rateLimiter(update.tx_rate_limiter),
      });
    } catch (error) {
      throw faultOf(error, `Network interface ${update.iface_id}`);
    }
  }

  updateBalloon(amountMib: number): void {
    withBalloon(() => {
      this.#vm.setBalloon(amountMib);
    });
  }

  updateBalloonInterval(seconds: number): void {
    withBalloon(() => {
      this.#vm.setBalloonInterval(seconds);
    });
  }

  balloon(): BalloonReport | undefined {
    return this.#vm.statistics().balloon;
  }

  startHinting(endsItself: boolean): void {
    withBalloon(() => {
      this.#vm.startBalloonHinting({ endsItself });
    });
  }

  stopHinting(): void {
    withBalloon(() => {
      this.#vm.stopBalloonHinting();
    });
  }

  hinting(): HintingStatus {
    return withBalloon(() => this.#vm.balloonHinting());
  }

  sendCtrlAltDel(): void {
    if (!this.#vm.pressCtrlAltDel()) throw new Fault("The guest has not read the keys that were pressed before");
  }

  async createSnapshot(params: Section<"SnapshotCreateParams">): Promise<void> {
    try {
      const { createSnapshot } = await import("./snapshots.js");
      if (!this.#hasStarted) {
        // What has not run is saved between its first two instructions.
        this.#start();
        await this.#vm.pause();
      }
      const { settings, tracksPages } = this.#options;
      this.#last = await createSnapshot(this.#vm, params, { settings, tracksPages, last: this.#last });
    } catch (error) {
      throw faultOf(error, "The snapshot cannot be made");
    }
  }

  // -- For the process that it runs in --

  input(bytes: Uint8Array): number {
    return this.#vm.input(bytes);
  }

  statistics(): VmStatistics {
    return this.#vm.statistics();
  }

  stop(): void {
    this.#vm.stop();
  }

  closeDevices(): void {
    this.#vm.closeDevices();
  }
}
