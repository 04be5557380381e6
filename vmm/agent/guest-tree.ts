// A tree of the guest, entry by entry. What is next is asked for before it is wanted: the guest's files are small, and a
// question takes longer than its answer.
import type { Readable } from "node:stream";
import { ConfigError, GuestRequestError } from "../errors.js";
import type { FileStat } from "./file-stat.js";
import { joined, type GuestFiles } from "./files.js";
import { bytesOf, shown, type GuestBytes } from "./guest-bytes.js";
import type { FolderEntry } from "./list-decoder.js";
import { MAX_DEPTH, type TreeEntry, type TreeOptions } from "./tree-entry.js";

/** Requests ahead of the entry that is wanted; each holds a window at most. */
const AHEAD = 16;
/** Of lists that are held at once, `bytes` as the guest has sent them: folders along the way, and those asked for ahead. */
const LIST_BUDGET = 32 * 2 ** 20;
/** What an entry of a list has besides its name. */
const ENTRY_BYTES = 68;

interface Walk extends TreeOptions {
  readonly files: GuestFiles;
  readonly maxEntries: number;
  /** What is left of the budget, and how many entries have come. */
  budget: number;
  entries: number;
}

/** What has been asked about an entry: a file's content, a folder's list. */
interface Asked {
  content?: Readable;
  list?: Promise<FolderEntry[]>;
}

export interface GuestTreeOptions extends TreeOptions {
  /** More are an error. */
  readonly maxEntries?: number;
  /** A root that is a symbolic link is followed. */
  readonly followRoot?: boolean;
}

/** The entry at `root`, its path empty, and all that is below it. Links are not followed. */
export async function* guestTree(
  files: GuestFiles,
  root: GuestBytes,
  options: GuestTreeOptions = {},
): AsyncGenerator<TreeEntry, void, undefined> {
  const path = bytesOf(root);
  const { signal, onSkip, maxEntries = Infinity, followRoot = false } = options;
  const stat = followRoot ? await files.stat(path, { signal }) : await files.lstat(path, { signal });
  const target = stat.type === "symlink" ? await files.readlinkBytes(path, { signal }) : undefined;
  const walk: Walk = { files, signal, maxEntries, budget: LIST_BUDGET, entries: 0, ...(onSkip && { onSkip }) };
  const asked = askAhead(walk, stat, path, followRoot);
  try {
    yield* emit(walk, { ...stat, target }, path, Buffer.alloc(0), asked, 0);
  } finally {
    drop(asked);
  }
}

async function* emit(
  walk: Walk,
  stat: FileStat & { readonly target: Buffer | undefined },
  guestPath: Buffer,
  path: Buffer,
  asked: Asked,
  depth: number,
): AsyncGenerator<TreeEntry, void, undefined> {
  walk.signal?.throwIfAborted();
  if (++walk.entries > walk.maxEntries) {
    throw new ConfigError([`The guest's tree has more than ${String(walk.maxEntries)} entries (maxEntries)`]);
  }
  const { type, mode, uid, gid, mtimeNs, major, minor, target } = stat;
  const entry = { path, mode, uid, gid, mtimeNs, size: 0, target, major, minor, content: undefined };
  switch (type) {
    case "socket":
    case "unknown":
      walk.onSkip?.({ path: shown(guestPath), reason: type === "socket" ? "a socket" : "of an unknown type" });
      return;
    case "file": {
      const { content } = asked;
      const problem = content === undefined ? undefined : await begun(content);
      if (problem !== undefined) {
        skipOrThrow(walk, guestPath, problem);
        return;
      }
      yield { ...entry, type, size: stat.size, content };
      content?.destroy();
      return;
    }
    case "directory":
      yield { ...entry, type };
      yield* below(walk, guestPath, path, asked, depth);
      return;
    default:
      yield { ...entry, type };
  }
}

async function* below(
  walk: Walk,
  guestPath: Buffer,
  path: Buffer,
  asked: Asked,
  depth: number,
): AsyncGenerator<TreeEntry, void, undefined> {
  if (depth >= MAX_DEPTH) {
    throw new ConfigError([`${shown(guestPath).slice(0, 200)}: more than ${String(MAX_DEPTH)} folders deep`]);
  }
  let entries: FolderEntry[];
  try {
    entries = await (asked.list ?? list(walk, guestPath));
  } catch (error) {
    skipOrThrow(walk, guestPath, error);
    return;
  }
  const cost = entries.reduce(
    (sum, { nameBytes, target }) => sum + ENTRY_BYTES + nameBytes.length + (target?.length ?? 0),
    0,
  );
  walk.budget -= cost;
  const ahead: Asked[] = [];
  try {
    for (const [index, entry] of entries.entries()) {
      while (ahead.length < Math.min(index + AHEAD, entries.length)) {
        const next = entries[ahead.length];
        if (next === undefined) break;
        ahead.push(askAhead(walk, next, joined(guestPath, next.nameBytes), false, ahead.length === index));
      }
      const own = path.length === 0 ? entry.nameBytes : joined(path, entry.nameBytes);
      const { target, ...stat } = entry;
      yield* emit(walk, { ...stat, target }, joined(guestPath, entry.nameBytes), own, ahead[index] ?? {}, depth + 1);
      drop(ahead[index] ?? {});
      ahead[index] = {};
    }
  } finally {
    for (const one of ahead) drop(one);
    walk.budget += cost;
  }
}

/** Asks for a file's content; for a folder's list where it is the next one. */
function askAhead(walk: Walk, stat: FileStat, path: Buffer, follow: boolean, isNext = true): Asked {
  const { files, signal } = walk;
  if (stat.type === "file" && stat.size > 0) {
    return {
      content: files.readStream(path, { signal, follow, length: Math.min(stat.size, Number.MAX_SAFE_INTEGER) }),
    };
  }
  if (stat.type !== "directory" || !isNext) return {};
  const found = list(walk, path);
  // It is waited for later, or not at all.
  found.catch(() => undefined);
  return { list: found };
}

function list({ files, signal, budget }: Walk, path: Buffer): Promise<FolderEntry[]> {
  return files.list(path, { signal, maxBytes: Math.max(0, budget), follow: false });
}

function drop({ content }: Asked): void {
  content?.destroy();
}

/** What has gone, or has become something else meanwhile, is left out; all else is an error. */
function skipOrThrow(walk: Walk, guestPath: Buffer, error: unknown): void {
  if (!(error instanceof GuestRequestError) || walk.signal?.aborted === true || guestPath.length === 0) throw error;
  if (walk.onSkip === undefined || walk.entries === 1) throw error;
  walk.onSkip({ path: shown(guestPath), reason: error.message });
}

/** Waits for the first bytes, or the end; the error if there will be none. */
function begun(stream: Readable): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const end = (error?: Error): void => {
      stream.off("readable", ready).off("end", ready).off("close", closed);
      resolve(error);
    };
    const ready = (): void => {
      end();
    };
    const closed = (): void => {
      end(stream.errored ?? undefined);
    };
    if (stream.destroyed) closed();
    else stream.once("readable", ready).once("end", ready).once("close", closed);
  });
}
