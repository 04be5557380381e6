// virtiofsd serves one shared folder. It shuts itself into the folder (a mount namespace or a chroot, seccomp) before it
// answers. Debian: qemu-system-common.
import { accessSync, constants, readFileSync, realpathSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import { featureSet } from "../../../devices/virtio/features.js";
import type { ResolvedShare } from "../../config/shares.js";
import { ConfigError, HostError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { findProgram } from "../../host/programs.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { sharedMemoryFile } from "../../sys/shared-memory.js";
import { listenerWithConnection } from "../../sys/sockets.js";
import { beginVhostUser, endVhostUser, launchVhostUser, type VhostUserProcess } from "./vhost-user-process.js";
import {
  VIRTIOFSD,
  VIRTIOFSD_PACKAGE,
  needsMounts,
  virtiofsdCommands,
  type VirtiofsdFolder,
  type VirtiofsdHost,
} from "./virtiofsd-command.js";

/** Without these, what the transport offers would not be true. */
const NEEDED_FEATURES = featureSet(VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX);
/** What it always says when it starts. */
const NOISE = /^\s*(virtio_session_mount: .*|virtio_loop: (Entry|Exit))?\s*$/;

/** A server that runs; the caller closes it all. */
export interface Virtiofsd extends VhostUserProcess {
  /** A file that has all that it says in its place. */
  readonly journalFd: number | undefined;
  /** The shared one. */
  readonly folder: string;
}

/** Throws ConfigError, with all that cannot be shared. */
export function findFolders(shares: readonly ResolvedShare[]): VirtiofsdFolder[] {
  const problems: string[] = [];
  const folders = shares.map((share) => {
    const found = sharedFolder(share);
    if (typeof found === "string") problems.push(`Shared folder ${share.path}${found}`);
    return found;
  });
  if (problems.length > 0) throw new ConfigError(problems);
  return folders.filter((found) => typeof found !== "string");
}

/** A server that is on its way: until it is there, its caller has something else to do. */
export class StartingVirtiofsd {
  readonly #folder: VirtiofsdFolder;
  readonly #host: VirtiofsdHost;
  /** Other ways, for when this one fails. */
  readonly #commands: (readonly string[])[];
  readonly #isJournaled: boolean;
  #launched: Virtiofsd | undefined;

  /** Throws HostError where nothing can be started. */
  constructor(folder: VirtiofsdFolder, isJournaled = false) {
    this.#folder = folder;
    this.#isJournaled = isJournaled;
    this.#host = virtiofsdHost();
    this.#commands = virtiofsdCommands(this.#host, folder, isJournaled ? "debug" : "err");
    if (!this.#launch()) throw this.#failure(missing(this.#host, folder));
  }

  /** Waits until it answers; once. Throws HostError for one that cannot be started, and nothing is left of it then. */
  ready(): Virtiofsd {
    let why = "";
    do {
      const launched = this.#launched;
      if (launched === undefined) throw new Error("A server that nobody starts any more");
      this.#launched = undefined;
      const answer = beginVhostUser(launched, NEEDED_FEATURES);
      if (typeof answer === "bigint") return launched;
      endVirtiofsd(launched);
      why = answer;
    } while (this.#launch());
    throw this.#failure(why);
  }

  /** Ends it, unless it has been given away. */
  cancel(): void {
    if (this.#launched !== undefined) endVirtiofsd(this.#launched);
    this.#launched = undefined;
  }

  #launch(): boolean {
    const command = this.#commands.shift();
    if (command === undefined) return false;
    this.#launched = launch(command, this.#folder.path, this.#isJournaled);
    return true;
  }

  #failure(why: string): HostError {
    return new HostError(`Shared folder ${this.#folder.path}: virtiofsd cannot be started: ${why}`, {
      cure: cureFor(this.#host, this.#folder),
    });
  }
}

/** Throws HostError for a server that cannot be started. */
export function startVirtiofsd(folder: VirtiofsdFolder, isJournaled = false): Virtiofsd {
  return new StartingVirtiofsd(folder, isJournaled).ready();
}

/** Closes all of it, and ends it. */
export function endVirtiofsd(server: Virtiofsd): void {
  endVhostUser(server);
  if (server.journalFd !== undefined) closeDescriptor(server.journalFd);
}

/** Or what is wrong with it, behind its path. */
function sharedFolder({ path, isReadonly }: ResolvedShare): VirtiofsdFolder | string {
  try {
    const real = realpathSync(path);
    const stat = statSync(real);
    const isFile = stat.isFile();
    if (!isFile && !stat.isDirectory()) return " is neither a folder nor a file";
    accessSync(real, isFile ? constants.R_OK : constants.R_OK | constants.X_OK);
    return { path: real, isReadonly, isFile };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return `: ${errnoText(code)}`;
  }
}

function virtiofsdHost(): VirtiofsdHost {
  if (statSync(VIRTIOFSD, { throwIfNoEntry: false })?.isFile() !== true) {
    throw new HostError("Sharing a folder needs the program virtiofsd, which is not installed", {
      cure: `apt-get install ${VIRTIOFSD_PACKAGE}`,
    });
  }
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "0";
  return {
    virtiofsd: VIRTIOFSD,
    unshare: findProgram("unshare"),
    setpriv: findProgram("setpriv"),
    perl: findProgram("perl"),
    capabilities: BigInt(`0x${effective}`),
    hasSubordinateIds: findProgram("newuidmap") !== undefined && hasRange("/etc/subuid") && hasRange("/etc/subgid"),
  };
}

/** Lines are NAME:FIRST:COUNT, by the user's name or number. */
function hasRange(file: string): boolean {
  try {
    const { username, uid } = userInfo();
    const lines = readFileSync(file, "latin1").split("\n");
    return lines.some((line) => line.startsWith(`${username}:`) || line.startsWith(`${String(uid)}:`));
  } catch {
    return false;
  }
}

function missing({ unshare, perl }: VirtiofsdHost, folder: VirtiofsdFolder): string {
  const what = folder.isFile ? "share a file alone" : "make it read-only";
  if (needsMounts(folder) && perl === undefined) return `perl, which has to ${what}, is not there`;
  if (unshare === undefined) return "unshare (util-linux) is not there";
  return "this process has no right to do it";
}

function cureFor({ capabilities }: VirtiofsdHost, folder: VirtiofsdFolder): string {
  const rights = capabilities === 0n ? "run as root, or allow user namespaces" : "run as root with CAP_SYS_ADMIN";
  return needsMounts(folder) ? `${rights}; a read-only folder, or a file, needs Linux 5.12 or newer` : rights;
}

/** Starts it, and does not wait for it. */
function launch(argv: readonly string[], folder: string, isJournaled: boolean): Virtiofsd {
  const [socket, listener] = listenerWithConnection();
  const journalFd = isJournaled ? sharedMemoryFile("vmlet-journal") : undefined;
  try {
    const command = { name: "virtiofsd", argv, noise: NOISE, wordsTo: journalFd };
    return { ...launchVhostUser(command, socket, listener), journalFd, folder };
  } catch (error) {
    if (journalFd !== undefined) closeDescriptor(journalFd);
    throw error;
  }
}
