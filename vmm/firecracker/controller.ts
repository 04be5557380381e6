// What each request does, before a guest runs and after: Firecracker's rules of what may be asked when. A request that is refused
// has changed nothing.
import { Fault } from "./fault.js";
import type { Feature, Guest, Starter } from "./guest.js";
import type { Logger } from "./logger.js";
import type { MetricsWriter } from "./metrics.js";
import type { Asked, AskedName } from "./requests.js";
import type { Section } from "./sections.js";
import type { Settings } from "./settings.js";
import { FIRECRACKER_VERSION } from "./version.js";

export interface ControllerOptions {
  readonly id: string;
  readonly settings: Settings;
  readonly logger: Logger;
  readonly metrics: MetricsWriter;
  readonly starter: Starter;
  /** A guest runs, or is paused, from now on. */
  started(guest: Guest): void;
}

/** What is answered; undefined: it is done, and there is nothing to say. */
export type Reply = Readonly<Record<string, unknown>> | undefined;

type When = "before" | "after" | "always";

/** Before the guest runs, while it does, or both. */
const WHEN: Readonly<Record<AskedName, When>> = {
  getInstance: "always",
  getVersion: "always",
  getVmConfig: "always",
  getMachine: "always",
  getMmds: "always",
  putMmds: "always",
  patchMmds: "always",
  getBalloon: "always",
  action: "always",
  setBootSource: "before",
  setMachine: "before",
  updateMachine: "before",
  setCpuConfig: "before",
  setDrive: "before",
  setNet: "before",
  setVsock: "before",
  setBalloon: "before",
  setEntropy: "before",
  setSerial: "before",
  setPmem: "before",
  setMemoryHotplug: "before",
  setMmdsConfig: "before",
  setLogger: "before",
  setMetrics: "before",
  loadSnapshot: "before",
  createSnapshot: "after",
  setVmState: "after",
  getBalloonStatistics: "after",
  getHinting: "after",
  startHinting: "after",
  stopHinting: "after",
  getMemoryHotplug: "after",
  updateMemoryHotplug: "after",
  updateBalloon: "after",
  updateBalloonStatistics: "after",
  updateDrive: "after",
  updateNet: "after",
  updatePmem: "after",
  unplug: "after",
};

const BYTES_PER_PAGE = 4096;
const MIB = 2 ** 20;

export class Controller {
  readonly #options: ControllerOptions;
  readonly settings: Settings;
  #guest: Guest | undefined;

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.settings = options.settings;
  }

  get state(): "Not started" | Guest["state"] {
    return this.#guest?.state ?? "Not started";
  }

  /** Rejects with Fault. One request at a time. */
  async handle(asked: Asked): Promise<Reply> {
    const when = WHEN[asked.name];
    if (when === "before" && this.#guest !== undefined) throw new Fault(NOT_AFTER);
    if (when === "after" && this.#guest === undefined) throw new Fault(NOT_BEFORE);
    return this.#handle(asked);
  }

  async #handle(asked: Asked): Promise<Reply> {
    const { settings } = this;
    const { id, logger, metrics } = this.#options;
    switch (asked.name) {
      case "getInstance":
        return { id, state: this.state, vmm_version: FIRECRACKER_VERSION, app_name: "Firecracker" };
      case "getVersion":
        return { firecracker_version: FIRECRACKER_VERSION };
      case "getVmConfig":
        return settings.describe();
      case "getMachine":
        return settings.describeMachine();
      case "getMmds":
        return (settings.mmds.value ?? {}) as Reply;
      case "putMmds":
        settings.mmds.put(asked.body);
        return;
      case "patchMmds":
        settings.mmds.patch(asked.body);
        return;
      case "getBalloon":
        return this.#balloon();
      case "getBalloonStatistics":
        return this.#balloonStatistics();
      case "action":
        return this.#act(asked.body);
      case "setBootSource":
        settings.setBootSource(asked.body);
        return;
      case "setMachine":
        settings.setMachine(asked.body);
        return;
      case "updateMachine":
        settings.updateMachine(asked.body);
        return;
      case "setCpuConfig":
        settings.setCpuConfig(asked.body);
        return;
      case "setDrive":
        settings.setDrive(asked.body);
        return;
      case "setNet":
        return this.#set("network interfaces", () => {
          settings.setNet(asked.body);
        });
      case "setVsock":
        return this.#set("vsock", () => {
          settings.setVsock(asked.body);
        });
      case "setBalloon":
        settings.setBalloon(asked.body);
        return;
      case "setEntropy":
        settings.setEntropy(asked.body);
        return;
      case "setSerial":
        settings.setSerial(asked.body);
        return;
      case "setMmdsConfig":
        settings.setMmdsConfig(asked.body);
        return;
      case "setLogger":
        logger.configure(asked.body);
        return;
      case "setMetrics":
        metrics.configure(asked.body, id);
        return;
      case "loadSnapshot":
        return this.#load(asked.body);
      case "createSnapshot":
        return this.#createSnapshot(asked.body);
      case "setVmState":
        return this.#setState(asked.body);
      case "updateBalloon":
        return this.#updateBalloon(asked.body.amount_mib);
      case "updateBalloonStatistics":
        return this.#updateBalloonInterval(asked.body.stats_polling_interval_s);
      case "updateDrive":
        return this.#updateDrive(asked.body);
      case "updateNet":
        return this.#updateNet(asked.body);
      case "setPmem":
      case "updatePmem":
        throw new Fault("vmlet has no pmem devices; a drive is one that a guest can mount with DAX off");
      case "setMemoryHotplug":
      case "getMemoryHotplug":
      case "updateMemoryHotplug":
        throw new Fault(
          "vmlet has no memory that is plugged in later; give mem_size_mib, and a balloon to take from it",
        );
      case "getHinting": {
        const { hostCommand, guestCommand } = await this.#running.hinting();
        return { host_cmd: hostCommand, guest_cmd: guestCommand ?? null };
      }
      case "startHinting":
        await this.#running.startHinting(asked.body.acknowledge_on_stop ?? true);
        return;
      case "stopHinting":
        await this.#running.stopHinting();
        return;
      case "unplug":
        throw new Fault("vmlet has no PCI, and devices that can be unplugged are on it");
    }
  }

  async #act({ action_type: action }: Section<"InstanceActionInfo">): Promise<Reply> {
    if (action === "InstanceStart") {
      if (this.#guest !== undefined) throw new Fault(NOT_AFTER);
      this.#begin(await this.#options.starter.start(this.settings));
      return undefined;
    }
    if (this.#guest === undefined) throw new Fault(NOT_BEFORE);
    if (action === "FlushMetrics") {
      await this.#guest.refresh?.();
      this.#options.metrics.flush();
    } else await this.#guest.sendCtrlAltDel();
    return undefined;
  }

  /** Something that guests cannot have everywhere. */
  async #set(feature: Feature, set: () => void): Promise<undefined> {
    await this.#options.starter.check?.(feature);
    set();
  }

  async #load(params: Section<"SnapshotLoadParams">): Promise<Reply> {
    if (this.settings.isForBoot) {
      throw new Fault(
        "A snapshot brings its own devices: it is loaded by a process that nothing else was configured for",
      );
    }
    const guest = await this.#options.starter.load(params, this.settings);
    this.#begin(guest);
    if (params.resume_vm === true) await guest.resume();
    return undefined;
  }

  #begin(guest: Guest): void {
    this.#guest = guest;
    this.#options.started(guest);
  }

  get #running(): Guest {
    if (this.#guest === undefined) throw new Fault(NOT_BEFORE);
    return this.#guest;
  }

  async #setState({ state }: Section<"Vm">): Promise<Reply> {
    if (state === "Paused") await this.#running.pause();
    else await this.#running.resume();
    return undefined;
  }

  async #createSnapshot(params: Section<"SnapshotCreateParams">): Promise<Reply> {
    if (this.state !== "Paused") throw new Fault("A snapshot is made of a paused VM: PATCH /vm comes first");
    await this.#running.createSnapshot(params);
    return undefined;
  }

  #balloon(): Reply {
    const balloon = this.settings.describeBalloon();
    if (balloon === undefined) throw new Fault(NO_BALLOON);
    return balloon;
  }

  async #balloonStatistics(): Promise<Reply> {
    const { balloon } = this.settings;
    const report = await this.#running.balloon();
    if (balloon === undefined || report === undefined) throw new Fault(NO_BALLOON);
    if ((balloon.stats_polling_interval_s ?? 0) === 0) throw new Fault(NO_STATISTICS);
    const { targetBytes, actualBytes, guest = {} } = report;
    return {
      target_pages: targetBytes / BYTES_PER_PAGE,
      actual_pages: actualBytes / BYTES_PER_PAGE,
      target_mib: targetBytes / MIB,
      actual_mib: Math.floor(actualBytes / MIB),
      swap_in: guest.swapIn,
      swap_out: guest.swapOut,
      major_faults: guest.majorFaults,
      minor_faults: guest.minorFaults,
      free_memory: guest.freeMemory,
      total_memory: guest.totalMemory,
      available_memory: guest.availableMemory,
      disk_caches: guest.diskCaches,
      hugetlb_allocations: guest.hugetlbAllocations,
      hugetlb_failures: guest.hugetlbFailures,
      oom_kill: guest.oomKills,
      alloc_stall: guest.allocationStalls,
      async_scan: guest.asyncScans,
      direct_scan: guest.directScans,
      async_reclaim: guest.asyncReclaims,
      direct_reclaim: guest.directReclaims,
    };
  }

  async #updateBalloon(amountMib: number): Promise<Reply> {
    const { balloon } = this.settings;
    if (balloon === undefined) throw new Fault(NO_BALLOON);
    await this.#running.updateBalloon(amountMib);
    this.settings.balloon = { ...balloon, amount_mib: amountMib };
    return undefined;
  }

  async #updateBalloonInterval(seconds: number): Promise<Reply> {
    const { balloon } = this.settings;
    if (balloon === undefined) throw new Fault(NO_BALLOON);
    const isOn = (balloon.stats_polling_interval_s ?? 0) !== 0;
    // It is a queue of the device, which is there from the start or not at all.
    if (isOn !== (seconds !== 0))
      throw new Fault("Balloon: statistics cannot be turned on or off while the guest runs");
    if (isOn) await this.#running.updateBalloonInterval(seconds);
    this.settings.balloon = { ...balloon, stats_polling_interval_s: seconds };
    return undefined;
  }

  async #updateDrive(update: Section<"PartialDrive">): Promise<Reply> {
    const { drives } = this.settings;
    const at = drives.findIndex(({ drive_id: id }) => id === update.drive_id);
    if (at < 0) throw new Fault(`There is no drive ${update.drive_id}`);
    await this.#running.updateDrive(at, update);
    const given = Object.fromEntries(Object.entries(update).filter(([, value]) => value !== null));
    this.settings.drives = drives.map((drive, index) => (index === at ? { ...drive, ...given } : drive));
    return undefined;
  }

  async #updateNet(update: Section<"PartialNetworkInterface">): Promise<Reply> {
    const { nets } = this.settings;
    const at = nets.findIndex(({ iface_id: id }) => id === update.iface_id);
    if (at < 0) throw new Fault(`There is no network interface ${update.iface_id}`);
    await this.#running.updateNet(at, update);
    const given = Object.fromEntries(Object.entries(update).filter(([, value]) => value !== null));
    this.settings.nets = nets.map((net, index) => (index === at ? { ...net, ...given } : net));
    return undefined;
  }
}

/** Clients look for these two. */
const NOT_AFTER = "The requested operation is not supported after starting the microVM.";
const NOT_BEFORE = "The requested operation is not supported before starting the microVM.";
const NO_BALLOON = "There is no balloon";
const NO_STATISTICS = "Balloon: statistics were not turned on before the start (stats_polling_interval_s)";
