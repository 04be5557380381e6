// A VM and all by which others find it, in the process that has it: its record, its sockets, its end.
import { POWER_OFF } from "../agent/frames.js";
import { afterLimit } from "../host/time-limit.js";
import { shareAgent } from "./agent-socket.js";
import { AttachServer, type AttachedProgram, type AttachOptions } from "./attach-server.js";
import type { ControlServer } from "./control.js";
import type { JailMode } from "../config/jail-modes.js";
import type { Vm } from "../machine/vm.js";
import { handedTarget } from "./file-inbox.js";
import { GuestControls } from "./guest-controls.js";
import type { OutputLog } from "./output-log.js";
import { ownIdentity } from "./process-identity.js";
import type { VmFolder } from "./state-folder.js";
import { VmPlaces } from "./vm-places.js";
import type { VmRecord } from "./vm-record.js";
import type { VmSpec } from "./vm-spec.js";
import { Workload, type RunningWorkload, type WorkloadHooks } from "./workload.js";

/** From the order to turn itself off to the guest's end, `ms`. */
const POWER_OFF_LIMIT_MS = 5000;
const LAB_POWER_OFF_LIMIT_MS = 60_000;
/** In the record of one whose start has failed behind the seal. */
const EXIT_NOT_STARTED = 125;

export interface OwnerOptions extends WorkloadHooks {
  readonly hasLog: boolean;
  readonly signal?: AbortSignal | undefined;
}

export class VmOwner {
  readonly workload: RunningWorkload;
  readonly #spec: VmSpec;
  readonly #places: VmPlaces;
  #attached: AttachServer | undefined;
  #unshare: (() => void) | undefined;
  #control: ControlServer | undefined;
  #ending: Promise<void> | undefined;

  private constructor(spec: VmSpec, workload: RunningWorkload, places: VmPlaces) {
    this.#spec = spec;
    this.workload = workload;
    this.#places = places;
  }

  /** Rejects as Workload.start does, and with ConfigError for a name that another VM has; nothing is left then. */
  static async start(spec: VmSpec, options: OwnerOptions): Promise<VmOwner> {
    const jail = await jailOf(spec, options.log);
    const places = new VmPlaces(recordOf(spec, options.hasLog, jail));
    const seal =
      jail === "off" ? {} : { seal: ({ config }: Vm, isRestored: boolean) => places.seal(jail, config, isRestored) };
    try {
      return new VmOwner(spec, await startWorkload(spec, { ...options, ...seal }), places);
    } catch (error) {
      places.drop(EXIT_NOT_STARTED, String(error));
      throw error;
    }
  }

  get folder(): VmFolder {
    return this.#places.folder;
  }

  /** Of what its program writes, if that is kept. */
  get log(): OutputLog | undefined {
    return this.#places.log();
  }

  /** Who attaches to its program; undefined as long as nobody can. */
  get attached(): AttachServer | undefined {
    return this.#attached;
  }

  /** Others may attach to its program from here on. Throws HostError if there can be no socket. */
  listen(program: AttachedProgram, options: AttachOptions): AttachServer {
    this.#attached = AttachServer.listen(this.#places.socket("attach"), program, options);
    return this.#attached;
  }

  /** From here on others may use it. Rejects with HostError if its sockets cannot be made. */
  async open(): Promise<void> {
    const { workload } = this;
    const { vm, agent } = workload;
    this.#unshare = shareAgent(this.#places.socket("agent"), agent);
    const { ControlServer } = await import("./control.js");
    const controls = new GuestControls();
    controls.wantsFiles = (handed) => (handed === undefined ? this.#places.inbox?.path : undefined);
    controls.begin(vm, (folder, { handed, ...options }) => {
      const target = handedTarget(this.#places.inbox, folder, handed);
      return workload.save(folder, { ...options, note: JSON.stringify(this.#spec) }, target);
    });
    this.#control = ControlServer.listen(this.#places.socket("control"), controls);
    this.#places.running(this.workload.isRestored);
  }

  /** Ends the guest; this process is to end then, too. Later calls wait for the first. */
  end(exitCode: number, error?: string): Promise<void> {
    this.#ending ??= this.#end(exitCode, error);
    return this.#ending;
  }

  async #end(exitCode: number, error: string | undefined): Promise<void> {
    this.#attached?.ended(exitCode);
    this.#attached?.close();
    this.#unshare?.();
    this.#control?.close();
    try {
      if (this.#mustBeTurnedOff) await this.#turnOff();
      await this.workload.leave();
    } finally {
      this.#places.leave(exitCode, error);
    }
  }

  /** What it has written to a disk of its own must be on the medium. */
  get #mustBeTurnedOff(): boolean {
    return this.#spec.root.kind === "disk" && !this.#spec.isReadonly && this.workload.vm.state === "running";
  }

  async #turnOff(): Promise<void> {
    const { agent, ended, vm } = this.workload;
    const events = { onDone: () => undefined, onRefused: () => undefined, onLost: () => undefined };
    agent.open({ type: POWER_OFF, payload: Buffer.alloc(4), what: "power off", outputs: 0 }, events);
    const limitMs = this.#spec.isInLab === true ? LAB_POWER_OFF_LIMIT_MS : POWER_OFF_LIMIT_MS;
    const inTime = afterLimit("the guest's end", limitMs, () => {
      vm.stop();
    });
    await ended.catch(() => undefined);
    inTime();
  }
}

/** How its process is sealed here. */
async function jailOf(spec: VmSpec, log: (line: string) => void): Promise<JailMode> {
  const { jail = "on", isInLab } = spec;
  // The lab has a machine of its own around it.
  if (jail === "off" || isInLab === true) return "off";
  const { Attendant } = await import("../jail/attendant.js");
  if (Attendant.own !== undefined) return jail;
  log("there is no jail around this VM: vmlet-jailer, which makes it, is not there or cannot start a process");
  return "off";
}

async function startWorkload(spec: VmSpec, options: OwnerOptions): Promise<RunningWorkload> {
  if (spec.isInLab !== true) return Workload.start(spec, options, options.signal);
  const { LabWorkload } = await import("./lab-workload.js");
  return LabWorkload.start(spec, options, options.signal);
}

function recordOf(spec: VmSpec, hasLog: boolean, jail: JailMode): VmRecord {
  const { id, name, source, imageId, memoryMib, cpus, network, ports, labels, autoRemove, stopSignal, main, defaults } =
    spec;
  return {
    version: 1,
    id,
    name,
    owner: ownIdentity(),
    created: new Date().toISOString(),
    status: "starting",
    source,
    ...(imageId === undefined ? {} : { imageId }),
    command: main?.argv ?? [],
    memoryMib,
    cpus,
    network: network.kind === "tap" ? `tap=${network.tap}` : network.kind,
    ports,
    labels,
    autoRemove,
    hasLog,
    hasTerminal: main?.hasTerminal ?? false,
    stopSignal,
    defaults,
    restored: false,
    jail,
    ...(spec.stopTimeoutMs === undefined ? {} : { stopTimeoutMs: spec.stopTimeoutMs }),
    ...(spec.isInLab === true ? { isInLab: true } : {}),
  };
}
