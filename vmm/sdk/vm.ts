// A VM that runs programs, as a program uses it: `await using vm = await Vm.start({ image: "oci:./app" })`. The VM lives in a
// process of its own: neither its devices nor its vCPUs take anything of this process's event loop.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { AgentConnection } from "../agent/connection.js";
import { GuestTrees } from "../agent/trees.js";
import { GuestControl } from "../agent/guest.js";
import { ConfigError, HostError, VmStateError } from "../errors.js";
import { inspectSnapshot } from "../snapshot/inspect.js";
import { connectAgent } from "./agent-socket.js";
import { request } from "./control-client.js";
import { Execution, type ExecOptions } from "./execution.js";
import { endMonitor, launchVm, type LaunchedVm } from "./launch.js";
import { mergedEnv, planVm } from "./plan.js";
import { newVmId, StateFolder, VmFolder, vmNameProblem } from "./state-folder.js";
import { vmStatistics, type VmUsage } from "./vm-usage.js";
import { checkVmOptions, type VmOptions } from "./vm-options.js";
import type { PublishedPort } from "./vm-record.js";
import type { VmSpec } from "./vm-spec.js";

export interface StartHooks {
  /** Ends the start, and leaves nothing. */
  readonly signal?: AbortSignal | undefined;
  /** What takes its time, in words. */
  readonly onProgress?: ((text: string) => void) | undefined;
  /** What happens otherwise than usual, a line each. */
  readonly onNotice?: ((line: string) => void) | undefined;
}

export type VmStartOptions = VmOptions & StartHooks;

/** What a VM that goes on from a snapshot may have of its own. */
export interface RestoreOptions extends StartHooks {
  readonly name?: string | undefined;
  readonly hostName?: string | undefined;
  readonly timeoutMs?: number | undefined;
}

export interface VmEnd {
  /** What the guest has turned itself off with; 137: it was ended from outside; 128 + N: signal N has ended its process. */
  readonly exitCode: number;
}

const SIGNAL_BASE = 128;
/** Between the refusal of one of its sockets and the end of another, `ms`. */
const LAST_WORD_MS = 200;

export class Vm {
  readonly id: string;
  readonly name: string;
  /** Ports of this host that lead to the guest's. */
  readonly ports: readonly PublishedPort[];
  /** It went on from where one like it was, and did not boot. */
  readonly restored: boolean;
  /** Resolves with the VM's end, whoever has brought it about. */
  readonly ended: Promise<VmEnd>;
  /** The guest's files. */
  readonly files: GuestTrees;
  /** Its ports, mounts, processes, memory. */
  readonly guest: GuestControl;
  /** The conversation with the guest's agent, for what has no method here. */
  readonly agent: AgentConnection;
  readonly #spec: VmSpec;
  readonly #launched: LaunchedVm;
  readonly #folder: VmFolder;
  #closing: Promise<void> | undefined;
  #isOver = false;

  private constructor(spec: VmSpec, launched: LaunchedVm, agent: AgentConnection, folder: VmFolder) {
    this.#spec = spec;
    this.#launched = launched;
    this.#folder = folder;
    this.id = spec.id;
    this.name = spec.name;
    this.ports = spec.ports;
    this.restored = launched.restored;
    this.agent = agent;
    this.files = new GuestTrees(agent);
    this.guest = new GuestControl(agent, this.files);
    this.ended = launched.ended.then((exitCode) => {
      this.#isOver = true;
      this.agent.close();
      this.#clearAway(exitCode);
      return { exitCode };
    });
    this.ended.catch(() => undefined);
  }

  /**
   * Starts a VM; resolves once its agent takes commands. Rejects with ConfigError for options that make no sense, with
   * ImageError, HostError, SnapshotError or AgentError, and with the signal's reason; nothing is left then.
   */
  static async start(options: VmStartOptions): Promise<Vm> {
    const { signal, onProgress, onNotice, ...given } = options;
    const checked = checkVmOptions(given);
    signal?.throwIfAborted();
    const plan = await planVm(checked, { program: undefined, autoRemove: true, onProgress, onNotice, signal });
    try {
      return await Vm.#launch(plan.spec, undefined, { signal, onProgress, onNotice });
    } finally {
      plan.release();
    }
  }

  /** A VM that goes on from a snapshot that `snapshot` has made; any number may, one after the other or at once. */
  static async restore(folder: string, options: RestoreOptions = {}): Promise<Vm> {
    const path = resolve(folder);
    const { note } = inspectSnapshot(path).state as { readonly note?: unknown };
    if (typeof note !== "string") {
      throw new ConfigError([`${path}: not a snapshot of a VM that Vm.start has started; openSnapshot takes any`]);
    }
    return Vm.#launch(specOfClone(JSON.parse(note) as VmSpec, options), path, options);
  }

  static async #launch(spec: VmSpec, snapshot: string | undefined, hooks: StartHooks): Promise<Vm> {
    const { signal, onProgress, onNotice } = hooks;
    const launched = await launchVm(
      { spec, isBound: true, waitsForAttach: false, keepsLog: false, ...(snapshot === undefined ? {} : { snapshot }) },
      {
        signal,
        onNotice,
        onBoot: () => onProgress?.("the guest boots"),
      },
    );
    const folder = new VmFolder(spec.id);
    try {
      const agent = await connectAgent(folder.agentSocket);
      await agent.ready;
      return new Vm(spec, launched, agent, folder);
    } catch (error) {
      await endMonitor(launched);
      signal?.throwIfAborted();
      throw error;
    }
  }

  /**
   * Runs a command. Awaited: its output, exit code and signal; a non-zero exit is a result, unless `check` is set. Iterated:
   * pieces of its output as they come. Rejects with ExecError where it cannot be run, or takes too long, and with AgentError
   * once the VM has ended.
   */
  exec(command: readonly string[], options: ExecOptions = {}): Execution {
    const { env, workingDirectory, user, groups, limits } = this.#spec.defaults;
    const own = Array.isArray(options.env)
      ? (options.env as string[])
      : Object.entries(options.env ?? {}).map(([name, value]) => `${name}=${String(value)}`);
    return new Execution(this.agent, command, {
      cwd: workingDirectory,
      ...(user === "" ? {} : { user }),
      ...(groups === undefined ? {} : { groups }),
      ...(limits === undefined ? {} : { limits }),
      ...options,
      env: options.cleanEnv === true ? own : mergedEnv(env, own),
    });
  }

  /** Lets the guest rest; resolves once every vCPU does. */
  async pause(): Promise<void> {
    await this.#control("pause", { pause: true });
    this.agent.setPaused(true);
  }

  /** Lets it go on. */
  async resume(): Promise<void> {
    await this.#control("resume", { resume: true });
    this.agent.setPaused(false);
  }

  /** What it uses of this host. Throws VmStateError after its end. */
  stats(): VmUsage {
    this.#refuseOver("stats");
    return vmStatistics(this.#launched.process.pid ?? 0);
  }

  /** Saves it to a folder, from which `Vm.restore` goes on. `stop`: it ends with that. */
  async snapshot(
    folder: string,
    { stop = false }: { readonly stop?: boolean } = {},
  ): Promise<{ id: string; bytes: number }> {
    return this.#save("snapshot", folder, stop);
  }

  /** Another VM that goes on from where this one is now. What `exec` has started and still runs is in this one alone. */
  async clone(options: RestoreOptions = {}): Promise<Vm> {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-clone-"));
    try {
      const saved = join(folder, "vm");
      await this.#save("clone", saved, false);
      // Its memory stays as long as somebody has it.
      return await Vm.#launch(specOfClone(this.#spec, options), saved, options);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Ends the VM, and waits until nothing is left of it. May be called again, and after its end. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.agent.close();
    await endMonitor(this.#launched);
  }

  async #save(method: string, folder: string, stop: boolean): Promise<{ id: string; bytes: number }> {
    const { id = "", bytes = 0 } = await this.#control(method, { snapshot: { folder: resolve(folder), stop } }, 0);
    return { id, bytes };
  }

  async #control(method: string, line: Parameters<typeof request>[1], timeoutMs?: number): ReturnType<typeof request> {
    this.#refuseOver(method);
    try {
      return await request(this.#folder.controlSocket, line, timeoutMs === undefined ? {} : { timeoutMs });
    } catch (error) {
      // The guest has ended before its process has, or while it was asked.
      if (error instanceof HostError) await Promise.race([this.agent.closed, setTimeout(LAST_WORD_MS)]);
      if (this.agent.error !== undefined) throw new VmStateError(method, "closed", "has ended");
      throw error;
    }
  }

  /** What a process that was killed could not take away itself. */
  #clearAway(exitCode: number): void {
    if (exitCode <= SIGNAL_BASE) return;
    try {
      new StateFolder(dirname(this.#folder.path)).remove(this);
    } catch {
      // The next command that looks does it.
    }
  }

  #refuseOver(method: string): void {
    if (this.#isOver || this.#closing !== undefined) throw new VmStateError(method, "closed", "has ended");
  }
}

function specOfClone(spec: VmSpec, { name, hostName, timeoutMs }: RestoreOptions): VmSpec {
  const problem = name === undefined ? undefined : vmNameProblem(name);
  if (problem !== undefined) throw new ConfigError([problem]);
  const id = newVmId();
  return {
    ...spec,
    id,
    name: name ?? `vm-${id}`,
    hostName: hostName ?? spec.hostName,
    timeoutMs: timeoutMs ?? 0,
    // Two VMs cannot listen at one port of this host.
    ports: [],
  };
}
