// The folder of a snapshot: who may write to it, what may lie in it, and how its files are opened. A snapshot holds all
// that a guest has in memory, and what it goes on with: nobody else shall read it, or be able to exchange it.
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { SnapshotError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { lockWhole } from "../sys/locks.js";
import { STATE_FILE_BEGIN } from "./state-file.js";

export const STATE_FILE = "state.json";
export const MEMORY_FILE = /^memory-[0-9a-f]{32}$/;
/** A state file that was being written. */
const NEW_STATE_FILE = /^state\.json\.[0-9a-f]{32}$/;

const PRIVATE_FOLDER = 0o700;
const PRIVATE_FILE = 0o600;
const WRITABLE_BY_ALL = 0o002;
const ROOT = 0;
/** Whom a user namespace does not know. */
const OVERFLOW_ID = 65_534;
/** Of those that stand in the way, so many are named. */
const NAMED = 3;
/** O_NONBLOCK: a FIFO by mistake is refused, not waited for; O_NOFOLLOW: a link in the folder leads out of it. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY | constants.O_NOFOLLOW;

const folderSynced = promisify(fsync);

/** The names of a snapshot's files while it is made: the state file's, and its memory's. */
export function fileNames(id: string): { readonly state: string; readonly memory: string } {
  return { state: `${STATE_FILE}.${id}`, memory: `memory-${id}` };
}

/** Where a snapshot is written to. */
export interface SnapshotTarget {
  /** For messages. */
  readonly path: string;
  /** Undefined: any new one. */
  readonly id?: string;
  /** A new file, which the caller closes. */
  make(name: string): number;
  publish(stateName: string, memoryName: string): Promise<void>;
  remove(name: string): void;
  close(): void;
  /** Nothing has come of it. */
  giveUp(): void;
}

/** A folder that this process alone writes to, for as long as it is open. */
export class SnapshotFolder implements SnapshotTarget {
  readonly path: string;
  readonly #fd: number;
  /** The first of the folders that were made for this one; undefined if it was there. */
  readonly #made: string | undefined;

  private constructor(path: string, fd: number, made: string | undefined) {
    this.path = path;
    this.#fd = fd;
    this.#made = made;
  }

  /**
   * Makes the folder if there is none. Throws SnapshotError for one that is not ours, that another process writes to, or
   * that holds anything else than a snapshot.
   */
  static take(path: string): SnapshotFolder {
    const made = makeFolder(path);
    const folder = new SnapshotFolder(path, openFolder(path), made);
    try {
      folder.#check();
    } catch (error) {
      folder.giveUp();
      throw error;
    }
    return folder;
  }

  /** The same for a folder that must be there, under this very name. */
  static takeExisting(path: string): SnapshotFolder {
    const stat = attempt(path, () => lstatSync(path));
    if (stat.isSymbolicLink()) {
      throw new SnapshotError(`${path}: a symbolic link`, { cure: "give the folder that it leads to" });
    }
    const folder = new SnapshotFolder(path, openFolder(path), undefined);
    try {
      folder.#check();
    } catch (error) {
      folder.close();
      throw error;
    }
    return folder;
  }

  /** Names of the snapshot's files, the state file first. */
  files(): string[] {
    return attempt(this.path, () => readdirSync(this.path)).sort(
      (a, b) => Number(b === STATE_FILE) - Number(a === STATE_FILE),
    );
  }

  /** A new file, for its owner alone. Throws an error of the file system. */
  make(name: string): number {
    return openSync(join(this.path, name), "wx", PRIVATE_FILE);
  }

  /** No error if it is not there. */
  remove(name: string): void {
    try {
      unlinkSync(join(this.path, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  /**
   * The new state file takes its place in one step, and what a snapshot before this one, or one that did not come to its end, has left
   * goes. Rejects with an error of the file system.
   */
  async publish(stateName: string, memoryName: string): Promise<void> {
    renameSync(join(this.path, stateName), join(this.path, STATE_FILE));
    await folderSynced(this.#fd);
    for (const name of this.files()) if (name !== STATE_FILE && name !== memoryName) this.remove(name);
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Closes it, and removes the folders that were made for nothing. */
  giveUp(): void {
    this.close();
    if (this.#made === undefined) return;
    try {
      for (let folder = resolve(this.path); ; folder = dirname(folder)) {
        rmdirSync(folder);
        if (folder === this.#made) return;
      }
    } catch {
      // Somebody has put something there: then it stays.
    }
  }

  #check(): void {
    const { uid, mode } = fstatSync(this.#fd);
    if (uid !== process.geteuid?.()) {
      throw new SnapshotError(`${this.path}: belongs to another user (uid ${String(uid)})`, {
        cure: "give a folder of your own",
      });
    }
    if ((mode & WRITABLE_BY_ALL) !== 0) {
      throw new SnapshotError(`${this.path}: every user may write to it`, { cure: "give a folder of your own" });
    }
    if (!lockWhole(this.#fd)) {
      throw new SnapshotError(`${this.path}: another vmlet is writing or removing a snapshot there`);
    }
    const others = this.files().filter((name) => !isOurs(this.path, name));
    if (others.length > 0) {
      const named = others.slice(0, NAMED).map((name) => JSON.stringify(name));
      const more = others.length > NAMED ? ` and ${String(others.length - NAMED)} more` : "";
      throw new SnapshotError(`${this.path}: holds what is no part of a snapshot: ${named.join(", ")}${more}`, {
        cure: "give a folder that is the snapshot's alone",
      });
    }
  }
}

/** Opened for reading, and checked: its owner is us or root. `maximum`: `bytes` that it may have. Throws SnapshotError. */
export function openSnapshotFile(path: string, maximum = Infinity): { readonly fd: number; readonly size: number } {
  const fd = attempt(path, () => openSync(path, READ_FLAGS));
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new SnapshotError(`${path}: ${stat.isDirectory() ? "a folder" : "not a regular file"}`);
    if (stat.uid !== process.geteuid?.() && stat.uid !== ROOT) {
      // Whoever owns it can cut it while a guest has it for its memory.
      throw new SnapshotError(`${path}: belongs to another user (uid ${String(stat.uid)})`, {
        cure:
          stat.uid === OVERFLOW_ID
            ? "make a copy of the folder: cp -r --sparse=always; if it is root's, which a user's jail cannot tell, --jail off does"
            : "make a copy of the folder: cp -r --sparse=always",
      });
    }
    if ((stat.mode & WRITABLE_BY_ALL) !== 0) {
      throw new SnapshotError(`${path}: every user may write to it`, {
        cure: "chmod go-w, if you trust what is in it",
      });
    }
    if (stat.size > maximum) {
      throw new SnapshotError(`${path} has ${String(stat.size)} bytes, more than ${String(maximum)}`);
    }
    return { fd, size: stat.size };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** All of a file. Throws SnapshotError. */
export function readSnapshotFile(path: string, maximum: number): Buffer {
  const { fd, size } = openSnapshotFile(path, maximum);
  try {
    const bytes = Buffer.alloc(size);
    return attempt(path, () => {
      let done = 0;
      while (done < size) {
        const count = readSync(fd, bytes, done, size - done, done);
        if (count === 0) break;
        done += count;
      }
      return bytes.subarray(0, done);
    });
  } finally {
    closeSync(fd);
  }
}

/** Throws SnapshotError where there is no folder, or one that cannot be looked at. */
export function checkFolder(path: string): void {
  if (!attempt(path, () => statSync(path)).isDirectory()) throw new SnapshotError(`${path}: not a folder`);
}

/** Has an error of the file system name the path in words. */
export function attempt<Result>(path: string, task: () => Result): Result {
  try {
    return task();
  } catch (error) {
    throw inWords(path, error);
  }
}

/** A failing system call on `path` as SnapshotError; anything else as it is. */
export function inWords(path: string, error: unknown): unknown {
  const { code, errnoName } = error as { readonly code?: unknown; readonly errnoName?: unknown };
  const name = typeof errnoName === "string" ? errnoName : code;
  if (error instanceof SnapshotError || typeof name !== "string" || !/^E[A-Z0-9]+$/.test(name)) return error;
  return new SnapshotError(`${path}: ${errnoText(name)}`, { cause: error });
}

/**
 * With those above it; the first folder that it has made, if any. Throws SnapshotError. Node's own recursive mkdir never
 * returns where there can be none: in /proc.
 */
export function makeFolder(path: string): string | undefined {
  const missing: string[] = [];
  attempt(path, () => {
    for (let folder = resolve(path); ; folder = dirname(folder)) {
      const stat = statSync(folder, { throwIfNoEntry: false });
      if (stat?.isDirectory() === true) break;
      if (stat !== undefined) throw new SnapshotError(`${folder}: not a folder`);
      missing.unshift(folder);
    }
    for (const folder of missing) mkdirUnlessThere(folder);
  });
  return missing[0];
}

function mkdirUnlessThere(folder: string): void {
  try {
    mkdirSync(folder, PRIVATE_FOLDER);
  } catch (error) {
    // Another process may make it at the same moment; a link that leads nowhere is there, too.
    const isThere = (error as NodeJS.ErrnoException).code === "EEXIST";
    if (!isThere || statSync(folder, { throwIfNoEntry: false }) === undefined) throw error;
  }
}

function openFolder(path: string): number {
  return attempt(path, () => openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
}

/** What carries one of our names is ours, but for a state file: somebody else may have one, too. */
function isOurs(folder: string, name: string): boolean {
  if (name !== STATE_FILE) return MEMORY_FILE.test(name) || NEW_STATE_FILE.test(name);
  const path = join(folder, name);
  if (!lstatSync(path).isFile()) return false;
  const fd = openSync(path, READ_FLAGS);
  try {
    const head = Buffer.alloc(STATE_FILE_BEGIN.length);
    return readSync(fd, head, 0, head.length, 0) === head.length && head.toString("latin1") === STATE_FILE_BEGIN;
  } finally {
    closeSync(fd);
  }
}
