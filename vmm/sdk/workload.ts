// A VM that runs programs, in this process: it goes on from a template where it can, boots where it must, and is set up
// by its agent.
import { AgentConnection, type ConnectionOptions } from "../agent/connection.js";
import type { ResolvedConfig } from "../config/types.js";
import { hostQuirks } from "../fixups/host-quirks.js";
import { buildMissing } from "../host/first-use.js";
import type { BuildOptions } from "../machine/builder.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { Vm } from "../machine/vm.js";
import type { VmExit } from "../machine/vm-exit.js";
import { createSnapshot, type Snapshot, type SnapshotOptions } from "../snapshot/create.js";
import type { SnapshotTarget } from "../snapshot/folder.js";
import { freshIdentity } from "../snapshot/identity.js";
import type { ProgramTemplate } from "../snapshot/program-template.js";
import { OpenSnapshot } from "../snapshot/restore.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { ChannelTransport } from "./channel-transport.js";
import { canBeTemplate, guestConfig, needsSetUp } from "./guest-config.js";
import { canHoldMounts } from "./held-mounts.js";
import type { ControlledVm } from "./guest-controls.js";
import {
  connectionOfTemplate,
  heldStart,
  keepProgram,
  PLAIN_START,
  programTemplate,
  type BeginProgram,
  type ProgramStart,
} from "./program-start.js";
import type { CommandSpec } from "./command-spec.js";
import type { VmSpec } from "./vm-spec.js";

/** Of what the guest's console says, for an error, `bytes`. */
const KEPT_CONSOLE = 4096;
/** As long as a timer takes. */
const NEVER_MS = 2 ** 31 - 1;
/** mm/oom_kill.c; of a control group with a word before it. */
const KILLED_FOR_MEMORY = /out of memory(: Killed process | and no killable processes)/i;

interface GuestConsole {
  text: string;
  hasKilledForMemory: boolean;
}

export interface WorkloadHooks {
  /** Folder of a snapshot of a VM of this kind, from which this one goes on. */
  readonly snapshot?: string | undefined;
  /** An open one, in which the agent holds a program, and all is set up. */
  readonly held?: OpenSnapshot | undefined;
  /** The guest stands where it wants a snapshot to be taken. */
  readonly snapshotPoint?: ((vm: Vm) => void) | undefined;
  /** A line for whoever looks after this process. */
  readonly log: (line: string) => void;
  /** There is no template yet, and no guest: it takes as long as a boot. */
  boots?: (() => void) | undefined;
  /** False: nothing comes for the guest by this process's event loop in its first second, and the guest need not stop for it. */
  readonly hearsOwner?: boolean | undefined;
  /**
   * Seals this process before the guest runs; where its program is to be kept, before that program runs. Rejects where the guest is not
   * to go on.
   */
  readonly seal?: ((vm: Vm, isRestored: boolean) => Promise<void>) | undefined;
  /** Begins the VM's own program; it comes before the guest runs where that can be. */
  begin?: BeginProgram | undefined;
}

/** What its owner needs of it, wherever it runs. */
export interface RunningWorkload {
  readonly vm: ControlledVm;
  readonly agent: AgentConnection;
  /** It went on from a template. */
  readonly isRestored: boolean;
  /** Settles with the guest's end. */
  readonly ended: Promise<Pick<VmExit, "exitStatus">>;
  /** As createSnapshot of vmm/snapshot. */
  save(folder: string, options: SnapshotOptions, target: SnapshotTarget | undefined): Promise<Snapshot>;
  /** Ends it, for a process that ends then, too. */
  leave(): Promise<void>;
}

export class Workload implements RunningWorkload {
  readonly vm: Vm;
  readonly agent: AgentConnection;
  /** It went on from a template. */
  readonly isRestored: boolean;
  /** Settles with the guest's end. */
  readonly ended: Promise<VmExit>;
  readonly #snapshot: OpenSnapshot | undefined;
  readonly #transport: ChannelTransport;
  readonly #console: GuestConsole;

  private constructor(
    vm: Vm,
    agent: AgentConnection,
    transport: ChannelTransport,
    snapshot: OpenSnapshot | undefined,
    console: GuestConsole,
  ) {
    this.vm = vm;
    this.agent = agent;
    this.isRestored = snapshot !== undefined;
    this.#transport = transport;
    this.#snapshot = snapshot;
    this.#console = console;
    this.ended = vm.start({ threads: "main-first" }).finally(() => {
      this.#transport.ended();
    });
    // Whoever waits for it hears of it; nobody has to.
    this.ended.catch(() => undefined);
  }

  /**
   * Rejects with what building a VM throws, with SnapshotError for a template that cannot be made, and with AgentError
   * for a guest that does not get as far as its agent. `signal` ends the wait.
   */
  static async start(spec: VmSpec, hooks: WorkloadHooks, signal?: AbortSignal): Promise<Workload> {
    signal?.throwIfAborted();
    const known = { quirks: hostQuirks() };
    const config = guestConfig(spec, known.quirks);
    await buildMissing([config.kernel, config.initrd], signal);
    const deviceSupport = await loadDeviceSupport(config);
    const transport = new ChannelTransport();
    const console: GuestConsole = { text: "", hasKilledForMemory: false };
    const { hearsOwner = true } = hooks;
    const options = { known, deviceSupport, hearsOwner, mayBeSaved: true };
    let made: MadeVm | undefined;
    try {
      const origin = await originOf(spec, config, hooks, () =>
        template(config, { known, deviceSupport }, hooks, signal),
      );
      const keep = origin.keep;
      const seal = async (): Promise<void> => {
        if (made !== undefined) await hooks.seal?.(made.vm, made.snapshot !== undefined);
      };
      const host: VmHost = {
        ...hostOf(transport, hooks, console),
        ...(keep === undefined && hooks.snapshotPoint === undefined
          ? {}
          : {
              snapshotPoint: () => {
                if (made === undefined) return;
                hooks.snapshotPoint?.(made.vm);
                if (keep !== undefined) void keepProgram(keep, made.vm, hooks.log, seal);
              },
            }),
      };
      made = makeVm(origin, spec, config, host, options);
      signal?.throwIfAborted();
      transport.connect(made.vm);
      const agent = new AgentConnection(transport, {
        ...origin.connection,
        // An answer that is still to be given would be given to somebody else.
        ...(hooks.snapshotPoint === undefined ? {} : { silenceMs: NEVER_MS }),
      });
      const mustSetUp = !origin.isSetUp && needsSetUp(spec, made.snapshot !== undefined);
      // In the ring before the guest runs: it finds it there.
      if (!mustSetUp) hooks.begin?.(agent, origin.start);
      if (keep === undefined) await seal();
      const workload = new Workload(made.vm, agent, transport, made.snapshot, console);
      if (mustSetUp) {
        await workload.#setUp(spec, signal);
        hooks.begin?.(agent, origin.start);
      } else if (hooks.begin === undefined) await workload.#ready(signal);
      return workload;
    } catch (error) {
      await made?.vm.close();
      made?.snapshot?.close();
      throw error;
    }
  }

  /** The guest's kernel has said that it killed a process for want of memory. */
  get hasKilledForMemory(): boolean {
    return this.#console.hasKilledForMemory;
  }

  /** The last that the guest's console has said. */
  get lastWords(): string {
    return this.#console.text.trim();
  }

  readonly save = (folder: string, options: SnapshotOptions, target: SnapshotTarget | undefined): Promise<Snapshot> =>
    createSnapshot(this.vm, folder, options, target);

  /**
   * Ends the guest, and lets go of what its devices hold on the host: enough for a process that ends then, which need not
   * wait until all of its memory is freed.
   */
  async leave(): Promise<void> {
    this.agent.close();
    this.vm.stop();
    await this.ended.catch(() => undefined);
    this.vm.closeDevices();
  }

  /** Ends the guest, if it runs, and frees all of it. */
  async close(): Promise<void> {
    this.agent.close();
    await this.vm.close();
    this.#snapshot?.close();
  }

  async #setUp(spec: VmSpec, signal: AbortSignal | undefined): Promise<void> {
    const { setUpGuest } = await import("./guest-set-up.js");
    await this.#unlessAborted(signal, setUpGuest(this.agent, spec, this.isRestored));
  }

  async #ready(signal: AbortSignal | undefined): Promise<void> {
    await this.#unlessAborted(signal, this.agent.ready);
  }

  async #unlessAborted(signal: AbortSignal | undefined, task: Promise<void>): Promise<void> {
    const stop = (): void => {
      this.vm.stop();
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      signal?.throwIfAborted();
      await task;
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }
}

interface MadeVm {
  readonly vm: Vm;
  readonly snapshot: OpenSnapshot | undefined;
}

/** What a VM goes on from, and how its program begins there. */
interface Origin {
  /** Undefined: it boots. */
  readonly snapshot: OpenSnapshot | undefined;
  /** What is to be mounted has been, before the snapshot was made. */
  readonly isSetUp: boolean;
  /** It was saved in the midst of a conversation with another monitor. */
  readonly hasOtherHost?: boolean;
  readonly connection: ConnectionOptions;
  readonly start: ProgramStart;
  /** Where its program is kept for the next time. */
  readonly keep?: ProgramTemplate;
}

async function originOf(
  spec: VmSpec,
  config: ResolvedConfig,
  hooks: WorkloadHooks,
  openTemplate: () => Promise<OpenSnapshot>,
): Promise<Origin> {
  const { snapshot, held: open, begin } = hooks;
  if (open !== undefined) {
    return { snapshot: open, isSetUp: true, connection: { isGreeted: true }, start: PLAIN_START };
  }
  if (snapshot !== undefined) {
    const saved = OpenSnapshot.open(snapshot);
    return { snapshot: saved, isSetUp: true, hasOtherHost: true, connection: {}, start: PLAIN_START };
  }
  if (!canBeTemplate(spec)) {
    hooks.boots?.();
    return { snapshot: undefined, isSetUp: false, connection: {}, start: PLAIN_START };
  }
  const canBeHeld = begin !== undefined && spec.main !== undefined && canHoldMounts(spec);
  const program = canBeHeld ? await programOf(config, spec, spec.main) : undefined;
  const held = program?.open();
  if (held !== undefined) {
    const start = heldStart(spec);
    return { snapshot: held, isSetUp: true, connection: connectionOfTemplate(start), start };
  }
  const opened = await openTemplate();
  const keep = program?.isKnown() === true ? program : undefined;
  const start = { holds: keep !== undefined, heldOn: undefined };
  const connection = connectionOfTemplate(start);
  return { snapshot: opened, isSetUp: false, connection, start, ...(keep === undefined ? {} : { keep }) };
}

async function programOf(
  config: ResolvedConfig,
  spec: VmSpec,
  main: CommandSpec,
): Promise<ProgramTemplate | undefined> {
  const { templatePath } = await import("../snapshot/template.js");
  return programTemplate(templatePath(config), spec, main, config.shares);
}

function makeVm(
  { snapshot, hasOtherHost = false }: Origin,
  spec: VmSpec,
  config: ResolvedConfig,
  host: VmHost,
  options: BuildOptions,
): MadeVm {
  if (snapshot === undefined) return { vm: Vm.build(config, host, options), snapshot };
  try {
    const vm = snapshot.restore(host, options);
    vm.tellIdentity({ ...freshIdentity(), hostName: spec.hostName, hasOtherHost });
    return { vm, snapshot };
  } catch (error) {
    snapshot.close();
    throw error;
  }
}

function hostOf(transport: ChannelTransport, hooks: WorkloadHooks, console: GuestConsole): VmHost {
  return {
    output: (bytes, done) => {
      console.text = (console.text + Buffer.from(bytes).toString("latin1")).slice(-KEPT_CONSOLE);
      console.hasKilledForMemory ||= KILLED_FOR_MEMORY.test(console.text);
      done();
    },
    commandOutput: (bytes, done) => {
      transport.receive(bytes);
      done();
    },
    commandRoom: () => {
      transport.roomAvailable();
    },
    log: (line) => {
      hooks.log(line);
    },
  };
}

async function template(
  config: ResolvedConfig,
  options: BuildOptions,
  hooks: WorkloadHooks,
  signal: AbortSignal | undefined,
): Promise<OpenSnapshot> {
  const { openTemplate } = await import("../snapshot/template.js");
  return openTemplate(config, {
    ...options,
    signal,
    waits: () => hooks.boots?.(),
    boots: (vm) => {
      const stop = (): void => {
        vm.stop();
      };
      signal?.addEventListener("abort", stop, { once: true });
    },
  });
}
