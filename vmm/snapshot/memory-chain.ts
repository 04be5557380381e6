// The memory of a snapshot that has only what has changed since another one, its base, which may have one of its own.
import { closeSync } from "node:fs";
import { isAbsolute, join, relative, resolve } from "node:path";
import type { State, StateReader } from "../../devices/state.js";
import { resolveDescribed } from "../config/describe.js";
import type { VmConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { FileMemory, type MemoryLayer } from "../memory/saved-memory.js";
import { pageWords } from "../memory/written-pages.js";
import { attempt, openSnapshotFile, STATE_FILE } from "./folder.js";
import { checkMemory } from "./memory-file.js";
import { isDifferential, memoryBytes, memoryFileOf, readId, readState } from "./state-parts.js";
import { readingState } from "./state-file.js";

/** Snapshots one over the other, the full one included. */
export const MAX_CHAIN = 8;
const MAX_PATH = 4096;
const WORD_BYTES = 4;

/** What a differential snapshot says of what lies below it. */
export interface SavedBase {
  readonly id: string;
  /** From the snapshot's own folder. */
  readonly folder: string;
  /** A bit for each page that has changed since. */
  readonly pages: Uint32Array;
}

export function baseState(id: string, folder: string, own: string, pages: Uint32Array): State {
  const bytes = Buffer.from(pages.buffer, pages.byteOffset, pages.byteLength);
  return { id, folder: relative(resolve(own), resolve(folder)), pages: bytes.toString("base64") };
}

/** Undefined for a full snapshot. `length`: bytes of memory. Throws StateError. */
export function readBase(state: StateReader, length: number): SavedBase | undefined {
  if (!isDifferential(state)) return undefined;
  const base = state.at("memory").at("base");
  base.only(["id", "folder", "pages"]);
  const folder = base.text("folder", MAX_PATH);
  if (folder === "" || folder.includes("\0")) throw base.at("folder").wrong("a path");
  const bytes = base.bytes("pages", pageWords(length) * WORD_BYTES);
  const pages = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / WORD_BYTES);
  const total = length / PAGE_SIZE;
  const last = pages.at(-1) ?? 0;
  if (total % 32 !== 0 && last >>> (total % 32) !== 0) throw base.at("pages").wrong("of pages that the guest has");
  return { id: readId(base), folder, pages };
}

/** Where the base lies. */
export function baseFolder(folder: string, base: SavedBase): string {
  return isAbsolute(base.folder) ? base.folder : join(folder, base.folder);
}

/** Its file, and those below it, checked. Throws SnapshotError or StateError. */
export function openMemory(state: StateReader, folder: string): FileMemory {
  const opened: number[] = [];
  try {
    const { base, layers } = openChain(state, folder, opened);
    return new FileMemory(base, layers);
  } catch (error) {
    for (const fd of opened) closeSync(fd);
    throw error;
  }
}

/** A memory file that lies apart from its state. Throws SnapshotError or StateError. */
export function openApart(state: StateReader, path: string): FileMemory {
  const { fd } = openSnapshotFile(path);
  try {
    attempt(path, () => {
      checkMemory(fd, path, readId(state), lengthOf(state));
    });
    return new FileMemory(fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openChain(
  state: StateReader,
  folder: string,
  opened: number[],
): { readonly base: number; readonly layers: readonly MemoryLayer[] } {
  const length = lengthOf(state);
  const fd = openOne(state, folder, length, opened);
  const base = readBase(state, length);
  if (base === undefined) return { base: fd, layers: [] };
  if (opened.length >= MAX_CHAIN) {
    throw new SnapshotError(`${folder}: more than ${String(MAX_CHAIN)} snapshots lie one over the other`, {
      cure: "make a full one now and then",
    });
  }
  const below = baseFolder(folder, base);
  const found = readBelow(folder, below, base.id);
  const under = readingState(join(below, STATE_FILE), () => {
    if (lengthOf(found) !== length)
      throw new SnapshotError(`${folder}: its base ${below} is of a guest with other memory`);
    return openChain(found, below, opened);
  });
  return { base: under.base, layers: [...under.layers, { fd, pages: base.pages }] };
}

/** The base's state. Throws SnapshotError for one that is not there, or no longer the same. */
export function readBelow(folder: string, below: string, id: string): StateReader {
  let state: StateReader;
  try {
    state = readState(below);
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    throw new SnapshotError(`${folder}: needs its base, snapshot ${id}: ${error.message}`, { cause: error });
  }
  const found = readingState(join(below, STATE_FILE), () => readId(state));
  if (found === id) return state;
  throw new SnapshotError(`${folder}: needs snapshot ${id} as its base; ${below} has ${found}`, {
    cure: "a base that was replaced is gone; only full snapshots stand on their own",
  });
}

function lengthOf(state: StateReader): number {
  return memoryBytes(resolveDescribed(state.at("config").value as VmConfig));
}

function openOne(state: StateReader, folder: string, length: number, opened: number[]): number {
  const path = join(folder, memoryFileOf(state));
  const { fd } = openSnapshotFile(path);
  opened.push(fd);
  attempt(path, () => {
    checkMemory(fd, path, readId(state), length);
  });
  return fd;
}
