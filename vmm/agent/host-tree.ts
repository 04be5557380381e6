// A tree of the host, entry by entry; links are not followed, whoever puts them there meanwhile.
import type { BigIntStats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { ConfigError } from "../errors.js";
import { shown } from "./guest-bytes.js";
import type { HostFolder } from "./host-folder.js";
import { joined } from "./files.js";
import { MAX_DEPTH, type TreeEntry, type TreeOptions } from "./tree-entry.js";

const CHUNK = 65_536;
const EMPTY = Buffer.alloc(0);

/** The entry `name` of `folder`, its path empty, and all that is below it. */
export async function* hostTree(
  folder: HostFolder,
  name: Buffer,
  options: TreeOptions = {},
): AsyncGenerator<TreeEntry, void, undefined> {
  yield* emit(folder, name, EMPTY, options, 0);
}

/** A folder itself, its path empty, and all that is below it. */
export async function* hostFolderTree(
  folder: HostFolder,
  options: TreeOptions = {},
): AsyncGenerator<TreeEntry, void, undefined> {
  yield {
    ...attributesOf(await folder.stat()),
    path: EMPTY,
    type: "directory",
    size: 0,
    target: undefined,
    content: undefined,
  };
  yield* below(folder, EMPTY, options, 0);
}

async function* emit(
  folder: HostFolder,
  name: Buffer,
  path: Buffer,
  options: TreeOptions,
  depth: number,
): AsyncGenerator<TreeEntry, void, undefined> {
  options.signal?.throwIfAborted();
  const stat = await folder.lstat(name);
  const entry = { ...attributesOf(stat), path, size: 0, target: undefined, content: undefined };
  if (stat.isFile()) {
    const handle = await folder.openFile(name);
    try {
      const now = await handle.stat({ bigint: true });
      if (!now.isFile()) throw new ConfigError([`${shown(path)}: has changed while it was copied`]);
      yield {
        ...entry,
        ...attributesOf(now),
        type: "file",
        size: Number(now.size),
        content: contentOf(handle, Number(now.size)),
      };
    } finally {
      await handle.close();
    }
  } else if (stat.isDirectory()) {
    const child = await folder.child(name);
    try {
      yield { ...entry, type: "directory" };
      yield* below(child, path, options, depth);
    } finally {
      await child.close();
    }
  } else if (stat.isSymbolicLink()) {
    yield { ...entry, type: "symlink", target: await folder.readlink(name) };
  } else if (stat.isFIFO()) {
    yield { ...entry, type: "fifo" };
  } else if (stat.isCharacterDevice() || stat.isBlockDevice()) {
    yield { ...entry, ...deviceOf(stat), type: stat.isBlockDevice() ? "block-device" : "character-device" };
  } else {
    options.onSkip?.({ path: shown(path), reason: "a socket" });
  }
}

async function* below(
  folder: HostFolder,
  path: Buffer,
  options: TreeOptions,
  depth: number,
): AsyncGenerator<TreeEntry, void, undefined> {
  if (depth >= MAX_DEPTH)
    throw new ConfigError([`${shown(path).slice(0, 200)}: more than ${String(MAX_DEPTH)} folders deep`]);
  const names = (await folder.names()).sort((a, b) => a.compare(b));
  for (const name of names) {
    yield* emit(folder, name, path.length === 0 ? name : joined(path, name), options, depth + 1);
  }
}

function attributesOf(stat: BigIntStats): Pick<TreeEntry, "mode" | "uid" | "gid" | "mtimeNs" | "major" | "minor"> {
  return {
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeNs: stat.mtimeNs,
    major: 0,
    minor: 0,
  };
}

/** As makedev(3) of glibc packs them. */
function deviceOf({ rdev }: BigIntStats): { readonly major: number; readonly minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xffff_f000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffff_ff00n)),
  };
}

async function* contentOf(handle: FileHandle, size: number): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < size;) {
    const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, size - at));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}
