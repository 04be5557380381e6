// A tree of files on its way between the guest, the host and an archive: one entry at a time, folders before what is in them.
import { ConfigError } from "../errors.js";
import { shown, SLASH } from "./guest-bytes.js";
import { isName } from "./list-decoder.js";

export type TreeEntryType =
  "file" | "directory" | "symlink" | "hardlink" | "character-device" | "block-device" | "fifo";

export interface TreeEntry {
  /** From the tree's root, names of any bytes with "/" between; empty for the root itself. */
  readonly path: Buffer;
  readonly type: TreeEntryType;
  /** 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  /** Of a file, `bytes`; its content may turn out to be shorter, never longer. */
  readonly size: number;
  /** Of a symbolic link; of a hard link the path of the other name, from the tree's root. */
  readonly target: Buffer | undefined;
  /** Of a device. */
  readonly major: number;
  readonly minor: number;
  /** Of a file; to be read before the next entry is asked for. */
  readonly content: AsyncIterable<Uint8Array> | undefined;
}

/** What has not been copied, and why. */
export interface SkippedEntry {
  readonly path: string;
  readonly reason: string;
}

export interface TreeOptions {
  readonly signal?: AbortSignal | undefined;
  /** Hears of what is left out: sockets, what has gone meanwhile. */
  readonly onSkip?: (skipped: SkippedEntry) => void;
}

/** Folders in folders; each is an open descriptor while something below it is copied. */
export const MAX_DEPTH = 256;

/**
 * The names of a path from a tree's root. Throws ConfigError for "..", which leads out of it, and for what is no name: an
 * archive and a guest may say what they like.
 */
export function namesOf(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let at = 0; at < path.length;) {
    const slash = path.indexOf(SLASH, at);
    const end = slash < 0 ? path.length : slash;
    const name = path.subarray(at, end);
    at = end + 1;
    if (name.length === 0 || (name.length === 1 && name[0] === DOT)) continue;
    if (!isName(name)) throw new ConfigError([`${shown(path).slice(0, 200)}: a name that no tree of files can hold`]);
    names.push(name);
  }
  if (names.length > MAX_DEPTH) {
    throw new ConfigError([
      `${shown(path).slice(0, 200)}: ${String(names.length)} folders deep, the limit is ${String(MAX_DEPTH)}`,
    ]);
  }
  return names;
}

const DOT = 0x2e;
const SEPARATOR = Buffer.from("/");

/** The names with "/" between. */
export function pathOf(names: readonly Buffer[]): Buffer {
  return Buffer.concat(names.flatMap((name, index) => (index === 0 ? [name] : [SEPARATOR, name])));
}

/** A key for maps: one character a byte. */
export function keyOf(path: Buffer): string {
  return path.toString("latin1");
}
