// Parts of a state file that are read on their own: whose it is, and where its memory is.
import { lstatSync } from "node:fs";
import { join } from "node:path";
import { CHANNEL_BYTES } from "../../devices/pseudo/command-channel.js";
import type { StateReader } from "../../devices/state.js";
import type { ResolvedConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";
import { MIB } from "../memory/layout.js";
import { attempt, checkFolder, MEMORY_FILE, readSnapshotFile, STATE_FILE } from "./folder.js";
import { decodeState, MAX_STATE_BYTES } from "./state-file.js";

const ID = /^[0-9a-f]{32}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const MEMORY_FIELDS = 4;
/** So often a snapshot may be replaced by a newer one while it is opened. */
const TRIES = 10;

/** Reads again if a newer snapshot has taken the place of this one between its two files. */
export function unlessReplaced<Result>(read: () => Result): Result {
  for (let tries = 1; ; tries++) {
    try {
      return read();
    } catch (error) {
      const isGone = (error as { readonly cause?: { readonly code?: unknown } }).cause?.code === "ENOENT";
      if (!isGone || tries === TRIES) throw error;
    }
  }
}

/** The state file's contents. Throws SnapshotError. */
export function readState(folder: string): StateReader {
  checkFolder(folder);
  const path = join(folder, STATE_FILE);
  if (attempt(path, () => lstatSync(path, { throwIfNoEntry: false })) === undefined) {
    throw new SnapshotError(`${folder}: holds no snapshot: there is no ${STATE_FILE}`);
  }
  return decodeState(readSnapshotFile(path, MAX_STATE_BYTES), path);
}

export function readId(state: StateReader): string {
  const id = state.text("id", 32);
  if (!ID.test(id)) throw state.at("id").wrong("32 hexadecimal digits");
  return id;
}

export function memoryFileOf(state: StateReader): string {
  const memory = state.at("memory");
  memory.only(["file", "dataBytes", "sha256", ...(isDifferential(state) ? ["base"] : [])]);
  memory.integer("dataBytes", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
  if (!SHA256.test(memory.text("sha256", 64))) throw memory.at("sha256").wrong("a SHA-256 in hexadecimal");
  const name = memory.text("file", 64);
  if (!MEMORY_FILE.test(name)) throw memory.at("file").wrong("the name of a memory file");
  return name;
}

/** Of the memory file, without its last page. */
export function memoryBytes({ memoryMib, commandChannel }: ResolvedConfig): number {
  return memoryMib * MIB + (commandChannel ? CHANNEL_BYTES : 0);
}

/** Its memory file has only what has changed since another snapshot. */
export function isDifferential(state: StateReader): boolean {
  return state.at("memory").names(MEMORY_FIELDS).includes("base");
}
