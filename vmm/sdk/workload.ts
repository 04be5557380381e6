// A VM that runs programs, in this process: it goes on from a template where it can, boots where it must, and is set up
// by its agent.
import { AgentConnection } from "../agent/connection.js";
import type { ResolvedConfig } from "../config/types.js";
import { knownQuirks } from "../fixups/probe.js";
import type { Quirks } from "../fixups/quirks.js";
import { buildMissing } from "../host/first-use.js";
import { KvmSystem } from "../kvm/system.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { Vm } from "../machine/vm.js";
import type { VmExit } from "../machine/vm-exit.js";
import { freshIdentity } from "../snapshot/identity.js";
import { OpenSnapshot } from "../snapshot/restore.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { ChannelTransport } from "./channel-transport.js";
import { canBeTemplate, guestConfig } from "./guest-config.js";
import { setUpGuest } from "./guest-set-up.js";
import type { VmSpec } from "./vm-spec.js";

/** Of what the guest's console says, for an error, `bytes`. */
const KEPT_CONSOLE = 4096;

export interface WorkloadHooks {
  /** Folder of a snapshot of a VM of this kind, from which this one goes on. */
  readonly snapshot?: string | undefined;
  /** A line for whoever looks after this process. */
  log(line: string): void;
  /** There is no template yet, and no guest: it takes as long as a boot. */
  boots?(): void;
}

export class Workload {
  readonly vm: Vm;
  readonly agent: AgentConnection;
  /** It went on from a template. */
  readonly isRestored: boolean;
  /** Settles with the guest's end. */
  readonly ended: Promise<VmExit>;
  readonly #snapshot: OpenSnapshot | undefined;
  readonly #transport: ChannelTransport;
  readonly #console: { text: string };

  private constructor(
    vm: Vm,
    agent: AgentConnection,
    transport: ChannelTransport,
    snapshot: OpenSnapshot | undefined,
    console: { text: string },
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
    const known = { quirks: probe() };
    const config = guestConfig(spec, known.quirks);
    await buildMissing([config.kernel, config.initrd]);
    const deviceSupport = await loadDeviceSupport(config);
    const transport = new ChannelTransport();
    const console = { text: "" };
    const host = hostOf(transport, hooks, console);
    const options = { known, deviceSupport, hearsOwner: true, mayBeSaved: true };
    let snapshot: OpenSnapshot | undefined;
    let vm: Vm | undefined;
    try {
      if (hooks.snapshot !== undefined || canBeTemplate(spec)) {
        snapshot =
          hooks.snapshot === undefined
            ? await template(config, options, hooks, signal)
            : OpenSnapshot.open(hooks.snapshot);
        vm = snapshot.restore(host, options);
        vm.tellIdentity({ ...freshIdentity(), hostName: spec.hostName });
      } else {
        hooks.boots?.();
        vm = Vm.build(config, host, options);
      }
      signal?.throwIfAborted();
      transport.connect(vm);
      const agent = new AgentConnection(transport);
      const workload = new Workload(vm, agent, transport, snapshot, console);
      await workload.#setUp(spec, signal);
      return workload;
    } catch (error) {
      await vm?.close();
      snapshot?.close();
      throw error;
    }
  }

  /** The last that the guest's console has said. */
  get lastWords(): string {
    return this.#console.text.trim();
  }

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
    const stop = (): void => {
      this.vm.stop();
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await setUpGuest(this.agent, spec, this.isRestored);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }
}

/** Throws HostError without a /dev/kvm that can be used. */
function probe(): Quirks | undefined {
  const system = KvmSystem.open();
  try {
    return knownQuirks(system);
  } finally {
    system.close();
  }
}

function hostOf(transport: ChannelTransport, hooks: WorkloadHooks, console: { text: string }): VmHost {
  return {
    output: (bytes, done) => {
      console.text = (console.text + Buffer.from(bytes).toString("latin1")).slice(-KEPT_CONSOLE);
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
  options: { readonly known: { readonly quirks: Quirks | undefined } },
  hooks: WorkloadHooks,
  signal: AbortSignal | undefined,
): Promise<OpenSnapshot> {
  const { openTemplate } = await import("../snapshot/template.js");
  return openTemplate(config, {
    ...options,
    waits: () => hooks.boots?.(),
    boots: (vm) => {
      signal?.addEventListener(
        "abort",
        () => {
          vm.stop();
        },
        { once: true },
      );
    },
  });
}
