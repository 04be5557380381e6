// Where running VMs are found: a folder a VM, with its record and the sockets at which its process listens. Every
// command works on it after a crash of the one before: what a dead process has left is cleaned by whoever sees it.
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { ConfigError, HostError, SnapshotError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { randomBytes } from "../sys/random.js";
import { makeFolder } from "../snapshot/folder.js";
import { isAlive } from "./process-identity.js";
import type { VmRecord } from "./vm-record.js";

const PRIVATE = 0o700;
const PRIVATE_FILE = 0o600;
const ID_BYTES = 6;
const ID = /^[0-9a-f]{12}$/;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;
const RECORD_FILE = "vm.json";
const NAMES = "names";
const LONGEST_SOCKET = "control.sock";
/** Of VMs that have ended, the latest first. */
const MAX_ENDED = 64;
/** A process that was killed. */
const EXIT_KILLED = 137;
const MAX_RECORD_BYTES = 1024 * 1024;

export function newVmId(): string {
  return Buffer.from(randomBytes(ID_BYTES)).toString("hex");
}

/** The problem with a name that the user gives, if there is one. */
export function vmNameProblem(name: string): string | undefined {
  if (NAME.test(name) && !ID.test(name)) return undefined;
  return (
    `Name ${JSON.stringify(name)} is not 1 to 128 letters, digits, "_", "." and "-", ` +
    "the first of them a letter or a digit, or it could be taken for an id"
  );
}

/** Of this user, made if it is not there. Throws HostError. */
export function stateFolder(environment: NodeJS.ProcessEnv = process.env): string {
  const { VMLET_STATE: own, XDG_RUNTIME_DIR: runtime } = environment;
  const uid = process.geteuid?.() ?? 0;
  const path =
    own !== undefined && own !== ""
      ? resolve(own)
      : uid === 0
        ? "/run/vmlet"
        : runtime !== undefined && runtime !== ""
          ? join(runtime, "vmlet")
          : `/tmp/vmlet-state-${String(uid)}`;
  const longest = Buffer.byteLength(join(path, "0".repeat(2 * ID_BYTES), LONGEST_SOCKET));
  if (longest > MAX_UNIX_PATH_BYTES) {
    throw new HostError(
      `State folder ${path}: a socket in it would have a path of ${String(longest)} bytes; ${String(MAX_UNIX_PATH_BYTES)} fit`,
      { cure: "name a shorter one by VMLET_STATE" },
    );
  }
  try {
    // Node's own way to make folders above never ends in /proc.
    makeFolder(join(path, NAMES));
    const stat = lstatSync(path);
    if (stat.isDirectory() && stat.uid === uid && (stat.mode & 0o022) === 0) return path;
  } catch (error) {
    const why = error instanceof SnapshotError ? error.message : errnoText((error as NodeJS.ErrnoException).code ?? "");
    throw new HostError(`State folder ${path}: cannot be made: ${why}`, {
      cause: error,
      cure: "name another by VMLET_STATE",
    });
  }
  throw new HostError(`State folder ${path}: somebody else's, or others may write to it`, {
    cure: "name another by VMLET_STATE",
  });
}

/** What belongs to one VM in there. */
export class VmFolder {
  readonly path: string;

  constructor(id: string, root = stateFolder()) {
    this.path = join(root, id);
  }

  get agentSocket(): string {
    return join(this.path, "agent.sock");
  }

  get controlSocket(): string {
    return join(this.path, "control.sock");
  }

  get attachSocket(): string {
    return join(this.path, "attach.sock");
  }

  get filesSocket(): string {
    return join(this.path, "files.sock");
  }

  /** All that a VM that has ended has no use for. */
  get sockets(): readonly string[] {
    return [this.agentSocket, this.controlSocket, this.attachSocket, this.filesSocket];
  }

  get log(): string {
    return join(this.path, "log");
  }

  get recordFile(): string {
    return join(this.path, RECORD_FILE);
  }
}

/** By which a VM is found under its name. */
export interface NameLink {
  readonly path: string;
  readonly target: string;
}

export class StateFolder {
  readonly #root: string;

  constructor(root = stateFolder()) {
    this.#root = root;
  }

  folderOf(id: string): VmFolder {
    return new VmFolder(id, this.#root);
  }

  /** Throws ConfigError for a name that another VM has. */
  add(record: VmRecord): VmFolder {
    const folder = this.folderOf(record.id);
    mkdirSync(folder.path, { mode: PRIVATE });
    try {
      this.#write(record);
      this.#claimName(record);
    } catch (error) {
      rmSync(folder.path, { recursive: true, force: true });
      throw error;
    }
    return folder;
  }

  /** As another process will read it from now on. */
  update(record: VmRecord): void {
    this.#write(record);
  }

  /** All that is there, the newest first; what dead processes have left is put right. */
  list(): VmRecord[] {
    const records = readdirSync(this.#root)
      .filter((name) => ID.test(name))
      .flatMap((id) => this.#look(id) ?? []);
    return records.sort((a, b) => b.created.localeCompare(a.created));
  }

  /** By its name, its id, or the beginning of that. Throws ConfigError if it is none, or more than one. */
  find(word: string): VmRecord {
    const records = this.list();
    const exact = records.find(({ id, name }) => id === word || name === word);
    if (exact !== undefined) return exact;
    const found = /^[0-9a-f]+$/.test(word) ? records.filter(({ id }) => id.startsWith(word)) : [];
    const [one, another] = found;
    if (another !== undefined) throw new ConfigError([`More than one VM has an id that begins with ${word}`]);
    if (one === undefined) throw new ConfigError([`There is no VM ${JSON.stringify(word)}; vmlet ps --all lists them`]);
    return one;
  }

  remove({ id, name }: Pick<VmRecord, "id" | "name">): void {
    if (this.#ownerOfName(name) === id) rmSync(this.#namePath(name), { force: true });
    rmSync(this.folderOf(id).path, { recursive: true, force: true });
  }

  /** Those that have ended long ago. */
  removeOldest(): void {
    const ended = this.list().filter(({ status }) => status === "exited");
    for (const record of ended.slice(MAX_ENDED)) this.remove(record);
  }

  nameOf({ id, name }: VmRecord): NameLink {
    return { path: this.#namePath(name), target: id };
  }

  #namePath(name: string): string {
    return join(this.#root, NAMES, name);
  }

  #ownerOfName(name: string): string | undefined {
    try {
      return readlinkSync(this.#namePath(name));
    } catch {
      return undefined;
    }
  }

  #claimName({ id, name }: VmRecord): void {
    for (;;) {
      try {
        // A link that leads nowhere: made at once and whole, or not at all.
        symlinkSync(id, this.#namePath(name));
        return;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const owner = this.#ownerOfName(name);
      if (owner !== undefined && this.#look(owner) !== undefined) {
        throw new ConfigError([`Name ${JSON.stringify(name)}: the VM ${owner} has it; vmlet rm ${name} frees it`]);
      }
      rmSync(this.#namePath(name), { force: true });
    }
  }

  #write(record: VmRecord): void {
    const { recordFile } = this.folderOf(record.id);
    const draft = `${recordFile}.${String(process.pid)}`;
    writeFileSync(draft, `${JSON.stringify(record)}\n`, { mode: PRIVATE_FILE });
    renameSync(draft, recordFile);
  }

  /** Undefined if there is nothing that is anybody's. */
  #look(id: string): VmRecord | undefined {
    const record = this.#read(id);
    if (record === undefined) return undefined;
    if (record.status === "exited" || isAlive(record.owner)) return record;
    if (record.autoRemove) {
      this.remove(record);
      return undefined;
    }
    const ended: VmRecord = {
      ...record,
      status: "exited",
      exitCode: EXIT_KILLED,
      error: "the process in which it lived was killed",
      finished: new Date().toISOString(),
    };
    this.#write(ended);
    const folder = this.folderOf(id);
    for (const path of folder.sockets) rmSync(path, { force: true });
    return ended;
  }

  #read(id: string): VmRecord | undefined {
    const { recordFile } = this.folderOf(id);
    try {
      const text = readFileSync(recordFile, "utf8");
      if (text.length > MAX_RECORD_BYTES) return undefined;
      const record = JSON.parse(text) as Partial<VmRecord>;
      return (record.version as number) === 1 && record.id === id ? (record as VmRecord) : undefined;
    } catch {
      // Another process is removing it, or has not written it yet.
      return undefined;
    }
  }
}
