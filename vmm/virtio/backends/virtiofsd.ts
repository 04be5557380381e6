// virtiofsd serves one shared folder, over one connection: it ends when that is closed, however this process ends, so
// nothing is left to remove. It shuts itself into the folder (a mount namespace or a chroot, seccomp) before it answers.
// Debian: qemu-system-common.
import { spawn, type ChildProcess } from "node:child_process";
import {
  accessSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
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
import { connectUnix, listenUnix, streamPair } from "../../sys/sockets.js";
import { VhostUser } from "./vhost-user.js";
import {
  VIRTIOFSD,
  VIRTIOFSD_PACKAGE,
  needsMounts,
  virtiofsdCommands,
  type VirtiofsdFolder,
  type VirtiofsdHost,
} from "./virtiofsd-command.js";

/** It answers after milliseconds; the longest wait for one that does not, `ms`. */
const START_LIMIT_MS = 10_000;
/** Without these, what the transport offers would not be true. */
const NEEDED_FEATURES = featureSet(VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX);
/** Of what it says on its way, for messages, `bytes`. */
const KEPT_WORDS = 4096;
/** What it always says when it starts. */
const NOISE = /^\s*(virtio_session_mount: .*|virtio_loop: (Entry|Exit))?\s*$/;

/** A server that runs; the caller closes it all. */
export interface Virtiofsd {
  readonly socket: number;
  readonly vhost: VhostUser;
  /** What it says on its standard error; never waits. */
  readonly wordsFd: number;
  /** A file that has all that it says in its place. */
  readonly journalFd: number | undefined;
  /** The shared one. */
  readonly folder: string;
  readonly process: ChildProcess;
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
      const problem = problemOf(launched);
      if (problem === undefined) return launched;
      endVirtiofsd(launched);
      why = problem;
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

/**
 * Closes all of it, and ends it: what it has answered is done, and what it has not the guest cannot rely on. In a namespace
 * of its own it is the child of a process that waits for it.
 */
export function endVirtiofsd({ socket, vhost, wordsFd, journalFd, process: child }: Virtiofsd): void {
  vhost.close();
  closeAll(socket, wordsFd, journalFd);
  endProcess(child);
}

function endProcess(child: ChildProcess): void {
  const { pid, exitCode, signalCode } = child;
  // Until it has been waited for, the number is its own.
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  for (const own of childrenOf(pid)) {
    try {
      process.kill(own, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }
  child.kill("SIGKILL");
}

function childrenOf(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${String(pid)}/task/${String(pid)}/children`, "latin1");
    return children
      .split(" ")
      .filter((word) => word !== "")
      .map(Number);
  } catch {
    // It has ended, or the kernel does not tell: then it ends with its connection.
    return [];
  }
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

function closeAll(...descriptors: readonly (number | undefined)[]): void {
  for (const fd of descriptors) if (fd !== undefined) closeDescriptor(fd);
}

/** Starts it, and does not wait for it. */
function launch([program = "", ...args]: readonly string[], folder: string, isJournaled: boolean): Virtiofsd {
  const [socket, listener] = connectedPair();
  const [wordsFd, childWords] = streamPair();
  const journalFd = isJournaled ? sharedMemoryFile("vmlet-journal") : undefined;
  const vhost = new VhostUser(socket);
  let child: ChildProcess;
  try {
    // A session of its own: keys that end or stop vmlet are not meant for it.
    child = spawn(program, args, { stdio: ["ignore", "ignore", journalFd ?? childWords, listener], detached: true });
  } catch (error) {
    vhost.close();
    closeAll(socket, wordsFd, journalFd);
    throw error;
  } finally {
    closeDescriptor(listener);
    closeDescriptor(childWords);
  }
  // Without a listener it would end this process; that there is no process shows when it does not answer.
  child.on("error", () => undefined);
  child.unref();
  return { socket, vhost, wordsFd, journalFd, folder, process: child };
}

/** Waits for its answer: why it is of no use, or nothing. */
function problemOf({ vhost, wordsFd }: Virtiofsd): string | undefined {
  try {
    const features = vhost.begin(performance.now() + START_LIMIT_MS);
    if (features === undefined) return lastWords(wordsFd);
    const isEnough = (features & NEEDED_FEATURES) === NEEDED_FEATURES;
    return isEnough ? undefined : "this version lacks features of virtio that are needed";
  } catch {
    // It has ended before it was asked.
    return lastWords(wordsFd);
  }
}

/** A connection, and the listening socket whose first one it is: no other program can have it, and no file is left. */
function connectedPair(): [socket: number, listener: number] {
  let folder: string;
  try {
    folder = mkdtempSync(join(tmpdir(), "vmlet-"));
  } catch (error) {
    const why = errnoText((error as NodeJS.ErrnoException).code ?? "");
    throw new HostError(`The socket of virtiofsd needs a folder for temporary files; ${tmpdir()}: ${why}`, {
      cause: error,
      cure: "name another one: TMPDIR=FOLDER vmlet ...",
    });
  }
  let listener: number | undefined;
  let folderFd: number | undefined;
  let path: string | undefined;
  try {
    folderFd = openSync(folder, "r");
    // However long the folder's own path is.
    const wanted = `/proc/self/fd/${String(folderFd)}/s`;
    listener = listenUnix(wanted);
    path = wanted;
    return [connectUnix(path), listener];
  } catch (error) {
    if (listener !== undefined) closeDescriptor(listener);
    throw error;
  } finally {
    if (path !== undefined) unlinkSync(path);
    if (folderFd !== undefined) closeSync(folderFd);
    rmdirSync(folder);
  }
}

/** What it has said, in one line. */
function lastWords(fd: number): string {
  const lines = readWords(fd)
    .split("\n")
    .filter((line) => !NOISE.test(line));
  return lines.length > 0 ? lines.join("; ") : "it ends without a word";
}

/** What is there to be read, at most the last of it. */
export function readWords(fd: number): string {
  const bytes = Buffer.alloc(KEPT_WORDS);
  let kept = Buffer.alloc(0);
  try {
    // A server that talks for ever has its own turn again later.
    for (let turn = 0; turn < 16; turn++) {
      const count = readSync(fd, bytes, 0, bytes.length, null);
      if (count === 0) break;
      kept = Buffer.concat([kept, bytes.subarray(0, count)]).subarray(-KEPT_WORDS);
    }
  } catch {
    // Nothing more for now.
  }
  return kept.toString("utf8");
}
