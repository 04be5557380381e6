// The guests of this program: VMs of vmm/machine, made of a client's settings.
import type { ResolvedConfig } from "../config/types.js";
import { probeQuirks } from "../fixups/probe.js";
import { isQuirks, type Quirks } from "../fixups/quirks.js";
import { remembered } from "../host/probe-cache.js";
import { KvmSystem } from "../kvm/system.js";
import type { BuildOptions } from "../machine/builder.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { pool } from "../machine/threads.js";
import { Vm } from "../machine/vm.js";
import type { VmExit, VmStatistics } from "../machine/vm-exit.js";
import type { BalloonReport } from "../virtio/device-host.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { Fault, faultOf } from "./fault.js";
import type { Guest, Starter } from "./guest.js";
import type { Section } from "./sections.js";
import type { Settings } from "./settings.js";
import { CUSTOM_TEMPLATE, vmConfig } from "./vm-config.js";

export interface InstanceOptions {
  /** What the VM calls for its console and its problems. */
  readonly host: VmHost;
}

/** Makes guests on this host's KVM. */
export class KvmStarter implements Starter {
  readonly #options: InstanceOptions;
  #quirks: { readonly value: Quirks | undefined } | undefined;

  constructor(options: InstanceOptions) {
    this.#options = options;
  }

  /** Has done what a start would have to wait for; a host without a KVM says so when a guest is started. */
  async warmUp(vcpus: number): Promise<void> {
    try {
      this.#probe();
      await pool.warm(vcpus);
    } catch {
      // It is tried again, and said, when it matters.
    }
  }

  async start(settings: Settings): Promise<RunningGuest> {
    try {
      const quirks = this.#probe();
      const config = vmConfig(settings, { isSoftwareKvm: quirks !== undefined });
      return new RunningGuest(await this.#build(config, settings, quirks));
    } catch (error) {
      throw faultOf(error, "The microVM cannot be started");
    }
  }

  load(_params: Section<"SnapshotLoadParams">, _settings: Settings): Promise<RunningGuest> {
    return Promise.reject(new Fault("Snapshots cannot be loaded yet"));
  }

  async #build(config: ResolvedConfig, settings: Settings, quirks: Quirks | undefined): Promise<Vm> {
    const deviceSupport = await loadDeviceSupport(config);
    const openCpuTemplate = await templates(config, settings);
    const options = { known: { quirks }, deviceSupport, openCpuTemplate, hearsOwner: true, mayBeSaved: true };
    return Vm.build(config, this.#options.host, options);
  }

  /** Throws HostError without a /dev/kvm that can be used. */
  #probe(): Quirks | undefined {
    this.#quirks ??= { value: probe() };
    return this.#quirks.value;
  }
}

function probe(): Quirks | undefined {
  const system = KvmSystem.open();
  try {
    return remembered(() => probeQuirks(system), isQuirks);
  } finally {
    system.close();
  }
}

async function templates(
  { cpuTemplate }: ResolvedConfig,
  { cpuConfig }: Settings,
): Promise<BuildOptions["openCpuTemplate"]> {
  if (cpuTemplate === undefined) return undefined;
  const { openCpuTemplate, parseCpuTemplate } = await import("../machine/cpu-template-file.js");
  if (cpuTemplate !== CUSTOM_TEMPLATE) return openCpuTemplate;
  const { cpuid_modifiers, msr_modifiers } = cpuConfig ?? {};
  return () => parseCpuTemplate(JSON.stringify({ cpuid_modifiers, msr_modifiers }), "cpu-config");
}

export class RunningGuest implements Guest {
  readonly ended: Promise<VmExit>;
  readonly #vm: Vm;

  constructor(vm: Vm) {
    this.#vm = vm;
    // Threads of their own from the beginning: the API is answered meanwhile.
    this.ended = vm.start({ threads: "threads" });
    // Whoever waits for it hears of it.
    this.ended.catch(() => undefined);
  }

  get state(): Guest["state"] {
    return this.#vm.state === "paused" ? "Paused" : "Running";
  }

  async pause(): Promise<void> {
    try {
      await this.#vm.pause();
    } catch (error) {
      throw faultOf(error, "The microVM cannot be paused");
    }
  }

  resume(): void {
    try {
      this.#vm.resume();
    } catch (error) {
      throw faultOf(error, "The microVM cannot be resumed");
    }
  }

  updateDrive(_index: number, _update: Section<"PartialDrive">): void {
    throw new Fault("Drives cannot be changed yet while the guest runs");
  }

  updateNet(_index: number, _update: Section<"PartialNetworkInterface">): void {
    throw new Fault("Network interfaces cannot be changed yet while the guest runs");
  }

  updateBalloon(amountMib: number): void {
    try {
      this.#vm.setBalloon(amountMib);
    } catch (error) {
      throw faultOf(error, "Balloon");
    }
  }

  updateBalloonInterval(_seconds: number): void {
    // The guest is asked when somebody looks.
  }

  balloon(): BalloonReport | undefined {
    return this.#vm.statistics().balloon;
  }

  sendCtrlAltDel(): void {
    throw new Fault("Keys cannot be sent yet");
  }

  createSnapshot(_params: Section<"SnapshotCreateParams">): Promise<void> {
    return Promise.reject(new Fault("Snapshots cannot be made yet"));
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
