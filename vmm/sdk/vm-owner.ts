// A VM and all by which others find it, in the process that has it: its record, its sockets, its end.
import { POWER_OFF } from "../agent/frames.js";
import { afterLimit } from "../host/time-limit.js";
import { shareAgent } from "./agent-socket.js";
import { AttachServer, type AttachedProgram, type AttachOptions } from "./attach-server.js";
import type { ControlServer } from "./control.js";
import { GuestControls } from "./guest-controls.js";
import { ownIdentity } from "./process-identity.js";
import { StateFolder, type VmFolder } from "./state-folder.js";
import type { VmRecord } from "./vm-record.js";
import type { VmSpec } from "./vm-spec.js";
import { Workload, type RunningWorkload, type WorkloadHooks } from "./workload.js";

/** From the order to turn itself off to the guest's end, `ms`. */
const POWER_OFF_LIMIT_MS = 5000;
const LAB_POWER_OFF_LIMIT_MS = 60_000;

export interface OwnerOptions extends WorkloadHooks {
  readonly hasLog: boolean;
  readonly signal?: AbortSignal | undefined;
}

export class VmOwner {
  readonly workload: RunningWorkload;
  readonly folder: VmFolder;
  readonly #spec: VmSpec;
  readonly #state: StateFolder;
  #record: VmRecord;
  #attached: AttachServer | undefined;
  #unshare: (() => void) | undefined;
  #control: ControlServer | undefined;
  #ending: Promise<void> | undefined;

  private constructor(spec: VmSpec, workload: RunningWorkload, state: StateFolder, folder: VmFolder, record: VmRecord) {
    this.#spec = spec;
    this.workload = workload;
    this.#state = state;
    this.folder = folder;
    this.#record = record;
  }

  /** Rejects as Workload.start does, and with ConfigError for a name that another VM has; nothing is left then. */
  static async start(spec: VmSpec, options: OwnerOptions): Promise<VmOwner> {
    const state = new StateFolder();
    const record = recordOf(spec, options.hasLog);
    const folder = state.add(record);
    try {
      const workload = await startWorkload(spec, options);
      return new VmOwner(spec, workload, state, folder, { ...record, restored: workload.isRestored });
    } catch (error) {
      state.remove(record);
      throw error;
    }
  }

  /** Who attaches to its program; undefined as long as nobody can. */
  get attached(): AttachServer | undefined {
    return this.#attached;
  }

  /** Others may attach to its program from here on. Throws HostError if there can be no socket. */
  listen(program: AttachedProgram, options: AttachOptions): AttachServer {
    this.#attached = AttachServer.listen(this.folder.attachSocket, program, options);
    return this.#attached;
  }

  /** From here on others may use it. Rejects with HostError if its sockets cannot be made. */
  async open(): Promise<void> {
    const { vm, agent, save } = this.workload;
    this.#unshare = shareAgent(this.folder.agentSocket, agent);
    const { ControlServer } = await import("./control.js");
    const controls = new GuestControls();
    controls.begin(vm, (folder, options) => save(folder, { ...options, note: JSON.stringify(this.#spec) }));
    this.#control = ControlServer.listen(this.folder.controlSocket, controls);
    this.#record = { ...this.#record, status: "running" };
    this.#state.update(this.#record);
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
      this.#leave(exitCode, error);
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

  #leave(exitCode: number, error: string | undefined): void {
    if (this.#record.autoRemove) {
      this.#state.remove(this.#record);
      return;
    }
    this.#record = {
      ...this.#record,
      status: "exited",
      exitCode,
      finished: new Date().toISOString(),
      ...(error === undefined ? {} : { error }),
    };
    this.#state.update(this.#record);
    this.#state.removeOldest();
  }
}

async function startWorkload(spec: VmSpec, options: OwnerOptions): Promise<RunningWorkload> {
  if (spec.isInLab !== true) return Workload.start(spec, options, options.signal);
  const { LabWorkload } = await import("./lab-workload.js");
  return LabWorkload.start(spec, options, options.signal);
}

function recordOf(spec: VmSpec, hasLog: boolean): VmRecord {
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
    ...(spec.stopTimeoutMs === undefined ? {} : { stopTimeoutMs: spec.stopTimeoutMs }),
    ...(spec.isInLab === true ? { isInLab: true } : {}),
  };
}
