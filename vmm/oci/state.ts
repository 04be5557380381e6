// What is known of containers between one command and the next: a folder each. Every command works on it after a crash of the
// one before: what a container is comes from its monitor's process, and from what that has written last.
import { mkdirSync, openSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { ConfigError, HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { isAlive, isSame, type ProcessIdentity } from "../sdk/process-identity.js";
import type { CgroupPaths } from "./cgroups.js";
import type { ContainerJail } from "./jail-option.js";
import { ID } from "./container-id.js";
import type { SharedPath } from "./guest-setup.js";
import type { PodRole } from "./pod.js";
import type { OciHook, HookKind, OciSpec } from "./runtime-spec.js";

export const DEFAULT_ROOT = "/run/vmlet-runtime";
const RECORD = "state.json";
const PHASE = "phase.json";
/** Of the file of a phase, which is blank at first. */
export const PHASE_BYTES = 64;
/** How often it is read before there is none. */
const PHASE_TURNS = 3;
const CONFIG = "config.json";
const FRONT = "front";

export type ContainerStatus = "creating" | "created" | "running" | "paused" | "stopped";

/** Of the runtime's option --log. */
export interface LogFile {
  readonly path: string;
  readonly format: "text" | "json";
}

/** Written by `create`. */
export interface ContainerRecord {
  readonly id: string;
  readonly ociVersion: string;
  readonly bundle: string;
  readonly rootfs: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly created: string;
  readonly owner: string;
  readonly role: PodRole;
  readonly cgroups: CgroupPaths;
  readonly hooks: Readonly<Partial<Record<HookKind, readonly OciHook[]>>>;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly shared: readonly SharedPath[];
  readonly steps: readonly string[];
  /** As GuestSetup has them. */
  readonly namespaces: number;
  readonly joined: number;
  readonly group: readonly string[];
  /** What each process of the container takes before it begins: its filter of system calls. */
  readonly filter: readonly string[];
  readonly jail: ContainerJail;
  /** Absolute. */
  readonly log?: LogFile | undefined;
  /** The monitor's; undefined until there is one. */
  readonly monitor?: ProcessIdentity;
  /** Of the process that creates it, until that has come to its end. */
  readonly creator?: ProcessIdentity;
}

/** What the monitor has made, or is about to make, in the network namespace; written by it. */
export interface NetworkState {
  readonly taps: readonly string[];
  /** Numbers of interfaces beside them, whose frames go there. */
  readonly redirected: readonly number[];
}

/** Written by the monitor, to phase-file.ts. */
export interface ContainerPhase {
  readonly status: "running" | "paused";
  /** The program's number in the guest. */
  readonly guestPid: number;
}

export class Container {
  readonly id: string;
  readonly folder: string;

  constructor(root: string, id: string) {
    this.id = id;
    this.folder = join(root, id);
  }

  /** The one whose folder that is. */
  static at(folder: string): Container {
    return new Container(dirname(folder), basename(folder));
  }

  get exists(): boolean {
    return statSync(this.folder, { throwIfNoEntry: false })?.isDirectory() === true;
  }

  /** Undefined where `create` has not come so far. Throws ConfigError for a container that is not there. */
  get record(): ContainerRecord | undefined {
    if (!this.exists) throw new ConfigError(["container does not exist"]);
    const record = readOwn(join(this.folder, RECORD)) as Partial<ContainerRecord> | undefined;
    // Docker has one root for all of its runtimes.
    if (record !== undefined && record.steps === undefined) {
      throw new ConfigError([`container ${this.id} is another runtime's`]);
    }
    return record as ContainerRecord | undefined;
  }

  /** The same, of a container that has been created. */
  get known(): ContainerRecord {
    const { record } = this;
    if (record === undefined)
      throw new ConfigError([`container ${this.id} has not been created to its end; delete it`]);
    return record;
  }

  /** Undefined before the program has begun. Who owns the monitor writes what they like. */
  get phase(): ContainerPhase | undefined {
    for (let turn = 0; turn < PHASE_TURNS; turn++) {
      const read = readOwn(this.phasePath) as Partial<ContainerPhase> | null | undefined;
      // Undefined, too, for one that is written at this moment.
      const { status, guestPid } = read ?? {};
      if ((status === "running" || status === "paused") && Number.isSafeInteger(guestPid))
        return { status, guestPid: Number(guestPid) };
    }
    return undefined;
  }

  get phasePath(): string {
    return join(this.folder, PHASE);
  }

  get status(): ContainerStatus {
    const { record } = this;
    if (record === undefined) return "creating";
    const isCreating = record.creator !== undefined;
    if (isCreating && isAlive(record.creator)) return "creating";
    if (record.monitor === undefined || !isAlive(record.monitor)) return "stopped";
    // Its monitor is about to notice that nobody creates it any more.
    return isCreating ? "creating" : (this.phase?.status ?? "created");
  }

  /** Of its VM's files; that of a container in a pod is a part of the sandbox's. */
  get share(): string {
    return join(this.folder, "share");
  }

  /** The one that has the VM: itself, or its pod's. */
  vmOwner({ role }: ContainerRecord): Container {
    return role.kind === "container" ? new Container(dirname(this.folder), role.sandbox) : this;
  }

  /** Throws ConfigError if there is one already, HostError. */
  make(): void {
    try {
      mkdirSync(dirname(this.folder), { recursive: true, mode: 0o711 });
      mkdirSync(this.folder, { mode: 0o700 });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") throw new ConfigError(["container with given ID already exists"]);
      throw this.#inWords(error);
    }
  }

  write(record: ContainerRecord): void {
    this.#write(RECORD, record);
  }

  /** What the container is by config.json, as that was at `create`: what becomes of the file since is nothing to it. */
  keepConfig(spec: OciSpec): void {
    this.#write(CONFIG, spec);
  }

  /** As front-file.ts has it. */
  writeFront(text: string): void {
    this.#writeText(FRONT, text);
  }

  /** Throws ConfigError for a container that has not been created to its end. */
  get config(): OciSpec {
    const spec = readOwn(join(this.folder, CONFIG)) as OciSpec | undefined;
    if (spec === undefined) throw new ConfigError([`container ${this.id} has not been created to its end; delete it`]);
    return spec;
  }

  writeNetwork(state: NetworkState): void {
    this.#write(NETWORK_STATE, state);
  }

  /** What `creator` has made of it; one that was removed meanwhile, and made again by somebody else, stays. Throws HostError. */
  removeUnfinished(creator: ProcessIdentity): void {
    const other = (readOwn(join(this.folder, RECORD)) as Partial<ContainerRecord> | undefined)?.creator;
    const isOthers = other !== undefined && !isSame(other, creator);
    if (!isOthers) this.remove();
  }

  /** Throws HostError. */
  remove(): void {
    try {
      rmSync(this.folder, { recursive: true, force: true });
    } catch (error) {
      throw this.#inWords(error);
    }
  }

  /**
   * A path of a file in the folder that fits a socket's address, however long the folder's own is. As long as this process
   * lives.
   */
  shortPath(name: string): string {
    this.#folderFd ??= openSync(this.folder, "r");
    return `/proc/self/fd/${String(this.#folderFd)}/${name}`;
  }

  #folderFd: number | undefined;

  #write(name: string, value: unknown): void {
    this.#writeText(name, JSON.stringify(value));
  }

  #writeText(name: string, text: string): void {
    const path = join(this.folder, name);
    try {
      writeFileSync(`${path}.new`, text, { mode: 0o600 });
      renameSync(`${path}.new`, path);
    } catch (error) {
      throw this.#inWords(error);
    }
  }

  /** Throws HostError for an error of the system's that `task` throws. */
  inWords<Result>(task: () => Result): Result {
    try {
      return task();
    } catch (error) {
      throw this.#inWords(error);
    }
  }

  #inWords(error: unknown): HostError {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    return new HostError(`State folder ${this.folder}: ${errnoText(code)}`, { cause: error });
  }
}

export const MONITOR_COMMAND = "monitor";
export const CONTROL_SOCKET = "control.sock";
export const AGENT_SOCKET = "agent.sock";
/** What the monitor has made in the network namespace. */
export const NETWORK_STATE = "network.json";
/** Who stands for a program of `exec`. */
export const RELAY_FILE = /^relay-\d+\.json$/;

/** Throws ConfigError for what is no name of a container. */
export function containerOf(root: string, id: string): Container {
  if (!ID.test(id)) {
    throw new ConfigError([`invalid id format: ${JSON.stringify(id)}: letters, digits, "_", "+", "-" and "."`]);
  }
  return new Container(root, id);
}

export function allContainers(root: string): Container[] {
  let names: string[];
  try {
    names = readdirSync(root);
  } catch {
    return [];
  }
  return names.filter((name) => ID.test(name)).map((name) => new Container(root, name));
}

function readOwn(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

export interface OciState {
  readonly ociVersion: string;
  readonly id: string;
  readonly status: ContainerStatus;
  readonly pid: number;
  readonly bundle: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What hooks and `state` are told. OCI runtime-spec, "State". */
export function stateOf(record: ContainerRecord, status: ContainerStatus): OciState {
  return {
    ociVersion: record.ociVersion,
    id: record.id,
    status,
    pid: status === "stopped" ? 0 : (record.monitor?.pid ?? 0),
    bundle: record.bundle,
    annotations: record.annotations,
  };
}
