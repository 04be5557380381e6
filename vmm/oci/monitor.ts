// The process of a container: it has the VM, waits until `start` asks for the program, and ends with that one's exit code.
import { rmSync } from "node:fs";
import { join, posix, resolve } from "node:path";
import { Agent } from "../agent/agent.js";
import { NAMESPACES } from "../agent/container-request.js";
import { HostError, VmmError } from "../errors.js";
import { hostQuirks } from "../fixups/host-quirks.js";
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { noteThreads } from "../jail/threads.js";
import { openThreadCode } from "../machine/thread-code.js";
import { pool } from "../machine/threads.js";
import { shareAgent } from "../sdk/agent-socket.js";
import { guestConfig } from "../sdk/guest-config.js";
import { GuestControls } from "../sdk/guest-controls.js";
import type { VmSpec } from "../sdk/vm-spec.js";
import { Workload } from "../sdk/workload.js";
import { processSeal } from "../sys/process-seal.js";
import { joinCgroups } from "./cgroups.js";
import { listenForCommands, watchCreate, type Controlled } from "./control.js";
import { isAdmitted } from "./early-process.js";
import { EarlySignals } from "./early-signals.js";
import { enterNetwork, networkPath } from "./enter-network.js";
import { startFailure } from "./exec-failure.js";
import { POD_MEMORY, podMemory, SHARE_IN_GUEST } from "./guest-setup.js";
import { removeGroup } from "./guest-group.js";
import { sealMonitor } from "./jail.js";
import { OutOfMemory } from "./out-of-memory.js";
import type { MonitorReply, MonitorRequest } from "./monitor-messages.js";
import { GuestNetwork, type Resolver } from "./network/guest-network.js";
import { shareLoopback, type LoopbackPorts } from "./network/loopback.js";
import type { OciSpec } from "./runtime-spec.js";
import { PhaseFile } from "./phase-file.js";
import { makeShare } from "./share.js";
import { HeldContainer } from "./held-container.js";
import { processorsOf } from "./machine-size.js";
import { holdTerminal, isNullInput, StandardProgram } from "./standard-program.js";
import { AGENT_SOCKET, Container, NETWORK_STATE, type ContainerRecord } from "./state.js";

const SIGKILL = 9;
const RESOLV_CONF = "/etc/resolv.conf";
const HOSTS = "/etc/hosts";
const EXIT_FAILURE = 1;
/** MS_NOSUID, MS_NODEV, MS_NOEXEC */
const NO_SUID_DEV_EXEC = 2 | 4 | 8;

/** The result is the process's exit code. */
export async function monitor(folder: string): Promise<number> {
  const container = Container.at(resolve(folder));
  // One that is started early has the time.
  noteThreads();
  if (!isAdmitted(enterNetwork)) return EXIT_FAILURE;
  // Before anything else has been started: threads and programs are in it from their beginning.
  const record = container.known;
  joinCgroups(record.cgroups, process.pid);
  // What is made for a moment goes with the container, also where this process is killed in that moment.
  process.env["TMPDIR"] = container.folder;
  let end: (exitCode: number) => void = () => undefined;
  const ended = new Promise<number>((done) => (end = done));
  const life =
    record.role.kind === "container"
      ? new (await import("./pod-member.js")).PodMember(container, record, end)
      : new Life(container, record, end);
  const stop = listenForCommands(container, life);
  life.begin();
  try {
    return await ended;
  } finally {
    stop();
    await life.leave();
  }
}

interface HeldProgram {
  readonly program: StandardProgram;
  /** Its guest's interfaces are gone. */
  readonly isNetworkless: boolean;
}

class Life implements Controlled {
  readonly #container: Container;
  readonly #record: ContainerRecord;
  readonly #end: (exitCode: number) => void;
  readonly #abort = new AbortController();
  readonly #controls = new GuestControls();
  readonly #network: GuestNetwork;
  #workload: Promise<Workload> | undefined;
  /** VMs whose end is not the container's. */
  readonly #left = new Set<Workload>();
  /** Programs that VMs hold until they are to begin. */
  readonly #held = new Map<Workload, HeldProgram>();
  #program: StandardProgram | undefined;
  #early: EarlySignals | undefined;
  #guestPid = 0;
  #loopback: LoopbackPorts | undefined;
  #isStarting = false;
  #prepared: Promise<void> | undefined;
  /** The VM whose interfaces have been made what the namespace's are. */
  #connection: { readonly workload: Workload; readonly resolver: Promise<Resolver> } | undefined;
  #hasOwnNetwork = false;
  #phase: PhaseFile | undefined;
  /** Of one that is to be sealed. */
  #outOfMemory: OutOfMemory | undefined;
  /** The first VM has not been the right one. */
  #isLater = false;

  constructor(container: Container, record: ContainerRecord, end: (exitCode: number) => void) {
    this.#container = container;
    this.#record = record;
    this.#end = end;
    this.#network = new GuestNetwork((state) => {
      // What is in a namespace of its own goes with that.
      if (!this.#hasOwnNetwork) container.writeNetwork(state);
    });
  }

  /** The VM, so that `start` finds it ready. */
  begin(): void {
    this.#hasOwnNetwork = networkPath(this.#container.config) === "";
    holdTerminal();
    // A thread that begins just when this process is sealed opens no file.
    if (this.#record.jail === "on") openThreadCode();
    makeShare(this.#container.share, this.#record.shared, this.#record.role.kind === "sandbox");
    watchCreate(this.#container, this.#record, {
      isKilled: () => {
        this.#end(EXIT_SIGNAL_BASE + SIGKILL);
      },
      isDone: () => {
        this.#prepared = this.#prepareNetwork();
      },
    });
    const made = this.#makeVm();
    made.catch(() => undefined);
    this.#workload = made;
    // While the VM's file server begins: nobody waits for it.
    if (this.#record.jail === "on" && this.#record.role.kind === "alone") {
      setImmediate(() => (this.#outOfMemory = OutOfMemory.prepare(this.#record.cgroups)));
    }
  }

  /** An engine has made its network by the end of `create`: `start` need not wait for the guest's part of it. */
  async #prepareNetwork(): Promise<void> {
    if (this.#isStarting) return;
    try {
      await this.#connect(await this.#madeVm());
    } catch {
      // `start` meets it again, and tells.
    }
  }

  async #connect(workload: Workload): Promise<Resolver> {
    if (this.#connection?.workload !== workload) {
      const resolver = this.#network.connect(new Agent(workload.agent), this.#sourceOf(RESOLV_CONF), {
        areRemoved: this.#held.get(workload)?.isNetworkless === true,
      });
      this.#connection = { workload, resolver };
    }
    return this.#connection.resolver;
  }

  async leave(): Promise<void> {
    this.#abort.abort(new Error("the container has ended"));
    const workload = await this.#workload?.catch(() => undefined);
    await workload?.leave();
    this.#loopback?.close();
    // Of a pod's containers each tells for itself.
    const isPod = this.#record.role.kind === "sandbox";
    if (workload?.hasKilledForMemory === true && !isPod) {
      const { cgroups, jail } = this.#record;
      await (jail === "on" ? this.#outOfMemory : OutOfMemory.prepare(cgroups))?.raise();
    }
    // Each interface that is removed has to be waited for, 10 ms and more; those of a namespace of its own go with that. A process that
    // is sealed leaves them to `delete`.
    if (this.#hasOwnNetwork || processSeal.isSealed) return;
    this.#network.close();
    rmSync(join(this.#container.folder, NETWORK_STATE), { force: true });
  }

  async #makeVm(): Promise<Workload> {
    this.#network.prepare();
    return this.#watch(
      (await this.#heldVm()) ?? (await Workload.start(this.#vmSpec(), { log: () => undefined }, this.#abort.signal)),
    );
  }

  /** One that holds this container's program already. */
  async #heldVm(): Promise<Workload | undefined> {
    const { config: spec } = this.#container;
    const { process } = spec;
    // A pod's VM has more to it than one program.
    if (process === undefined || this.#isLater || this.#record.role.kind === "sandbox") return undefined;
    const { namespaces: made, group, filter } = this.#record;
    const steps = [...group, ...this.#record.steps, ...filter];
    const isNetworkless = this.#network.seemsNone(this.#sourceOf(HOSTS), spec.hostname);
    const start = { spec, process, steps, made, noInput: isNullInput(), isNetworkless, vm: this.#vmSpec() };
    let held: HeldContainer | undefined;
    let isOpen = false;
    try {
      held = HeldContainer.of(start);
      const snapshot = await held?.open(this.#abort.signal);
      if (held === undefined || snapshot === undefined) return undefined;
      isOpen = true;
      const vm = { ...start.vm, hostName: spec.hostname === "" ? undefined : spec.hostname };
      const workload = await Workload.start(vm, { log: () => undefined, held: snapshot }, this.#abort.signal);
      held.served(true);
      const program = new StandardProgram(workload.agent, process, { steps, made, heldOn: held.stream });
      this.#held.set(workload, { program, isNetworkless });
      return workload;
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      // Its files are not what they were, or somebody removes what is kept.
      if (isOpen && !this.#abort.signal.aborted) held?.served(false);
      return undefined;
    }
  }

  #watch(workload: Workload): Workload {
    this.#controls.begin(workload.vm);
    void workload.ended.then(
      () => {
        // Its program's end comes first, unless the guest has died under it.
        if (this.#left.has(workload)) return;
        setTimeout(() => {
          this.#end(EXIT_SIGNAL_BASE + SIGKILL);
        }, 1000).unref();
      },
      () => {
        if (!this.#left.has(workload)) this.#end(EXIT_SIGNAL_BASE + SIGKILL);
      },
    );
    return workload;
  }

  #vmSpec(): VmSpec {
    const { id, memoryMib, cpus } = this.#record;
    return {
      id,
      name: id,
      root: { kind: "initramfs" },
      source: this.#record.rootfs,
      imageId: undefined,
      memoryMib,
      cpus: processorsOf(cpus, this.#container.config, hostQuirks() !== undefined),
      network: { kind: "namespace", taps: this.#network.taps },
      ports: [],
      volumes: [{ hostPath: this.#container.share, guestPath: SHARE_IN_GUEST, isReadonly: false, isFile: false }],
      tmpfs: [],
      hostName: undefined,
      isReadonly: false,
      labels: {},
      autoRemove: true,
      stopSignal: 15,
      main: undefined,
      timeoutMs: 0,
      defaults: { env: [], workingDirectory: "/", user: "" },
      // The memory of a container alone is the VM's.
      hasNoMemoryGroups: this.#record.role.kind === "alone",
    };
  }

  async answer(request: MonitorRequest, answer: (reply: MonitorReply) => void): Promise<void> {
    if ("start" in request) {
      await this.#start(answer);
    } else if ("signal" in request) {
      answer({ ok: true });
      this.signal(request.signal);
    } else if ("forget" in request) {
      await this.#forget(request.forget, request.names);
      answer({ ok: true });
    } else if ("processes" in request) {
      const workload = await this.#running();
      const processes = await new Agent(workload.agent).guest.processes();
      answer({
        ok: true,
        // Threads of the kernel have no command.
        processes: processes
          .filter(({ command, pid }) => command.length > 0 && pid > 1)
          .map(({ pid, parent, command }) => ({ pid, parent, command: command.join(" ") })),
      });
    } else {
      await this.#running();
      if ("pause" in request) await this.#controls.pause();
      else await this.#controls.resume();
      this.#phase?.write({ status: "pause" in request ? "paused" : "running", guestPid: this.#guestPid });
      answer({ ok: true });
    }
  }

  async #running(): Promise<Workload> {
    if (this.#workload === undefined || this.#program === undefined) throw new HostError("the container does not run");
    return this.#workload;
  }

  /** What was shared for a container of the pod is free again, for the engine to unmount and remove. */
  async #forget(id: string, names: readonly string[]): Promise<void> {
    const workload = await this.#workload;
    if (workload === undefined) return;
    const agent = new Agent(workload.agent);
    // By the guest, which then asks the file server to let go of them.
    for (const name of names) await agent.files.remove(posix.join(SHARE_IN_GUEST, id, name));
    await agent.files.remove(posix.join(SHARE_IN_GUEST, id));
    await removeGroup(agent, id);
  }

  signal(number: number): void {
    // What KILL ends may be stopped, hung, or none of the guest's any more: the VM itself ends.
    if (number === SIGKILL || this.#program === undefined) this.#end(EXIT_SIGNAL_BASE + number);
    else if (this.#early !== undefined) this.#early.send(number);
    else this.#program.signal(number);
  }

  /** With a device for each interface that there is by now: an engine may have made more than one since `create`. */
  async #madeVm(): Promise<Workload> {
    const workload = await this.#workload;
    if (workload === undefined) throw new Error("There is no VM");
    // A program that is held has its /etc/resolv.conf already.
    const held = this.#held.get(workload);
    const isWrong =
      held !== undefined &&
      (held.isNetworkless ? !this.#network.isNone : this.#network.needsResolver(this.#sourceOf(RESOLV_CONF)));
    if (!this.#network.needsMore && !this.#network.hasChanged && !isWrong) return workload;
    this.#isLater = true;
    this.#left.add(workload);
    await workload.leave();
    if (this.#connection !== undefined) this.#network.close();
    this.#workload = this.#makeVm();
    return this.#workload;
  }

  /** The host's file that the container has by that name. */
  #sourceOf(path: string): string | undefined {
    return this.#container.config.mounts?.find(({ destination }) => destination === path)?.source;
  }

  /** The steps with another file of the guest's in the place of the host's `source`. */
  #stepsWith(source: string | undefined, path: string): readonly string[] {
    const shared = this.#record.shared.find((entry) => entry.source === source);
    const bound = shared === undefined ? undefined : posix.join(SHARE_IN_GUEST, shared.name).slice(1);
    return this.#record.steps.map((word) => (word === bound ? path.slice(1) : word));
  }

  async #makePodMemory(workload: Workload, spec: OciSpec): Promise<void> {
    const data = this.#record.role.kind === "sandbox" ? podMemory(spec) : undefined;
    if (data === undefined) return;
    await new Agent(workload.agent).guest.mount("shm", POD_MEMORY, "tmpfs", { flags: NO_SUID_DEV_EXEC, data });
  }

  /** From here on this process opens nothing, and the program may begin; unless it is to be in no jail. */
  #seal(): void {
    if (this.#record.jail === "on") sealMonitor(this.#record, guestConfig(this.#vmSpec(), hostQuirks()), this.#network);
  }

  async #start(answer: (reply: MonitorReply) => void): Promise<void> {
    if (this.#isStarting) throw new HostError("cannot start an already running container");
    this.#isStarting = true;
    try {
      const spec = this.#container.config;
      const { process } = spec;
      if (process === undefined) throw new HostError("config.json has no process: there is nothing to start");
      await this.#prepared;
      const workload = await this.#madeVm();
      await this.#makePodMemory(workload, spec);
      const { path } = await this.#connect(workload);
      const { namespaces, group, filter } = this.#record;
      const steps = path === undefined ? this.#record.steps : this.#stepsWith(this.#sourceOf(RESOLV_CONF), path);
      shareAgent(this.#container.shortPath(AGENT_SOCKET), workload.agent);
      if (this.#record.role.kind === "sandbox") this.#loopback = shareLoopback(new Agent(workload.agent));
      this.#phase = PhaseFile.make(this.#container);
      // A thread that has not begun yet would be taken for one that has, and needs more.
      if (this.#record.jail === "on") await pool.whenReady();
      const held = this.#held.get(workload)?.program;
      const program =
        held ??
        new StandardProgram(workload.agent, process, {
          steps: [...group, ...steps, ...filter],
          made: namespaces,
          endsGuest: this.#record.role.kind === "alone",
          seal: () => this.#seal(),
        });
      if (held !== undefined) {
        this.#seal();
        held.begin();
      }
      this.#guestPid = await program.started;
      this.#program = program;
      if ((namespaces & NAMESPACES.pid) !== 0) {
        this.#early = new EarlySignals(workload.agent, this.#guestPid, (number) => {
          program.signal(number);
        });
      }
      this.#phase.write({ status: "running", guestPid: this.#guestPid });
      answer({ ok: true });
      program.onEnd(this.#end);
    } catch (error) {
      answer({ error: startFailure(error) });
      this.#end(EXIT_FAILURE);
    }
  }
}
