// Files between guest and host by name, with the meanings of `docker cp`.
import { stat } from "node:fs/promises";
import { open, type FileHandle } from "node:fs/promises";
import { constants } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { ConfigError, GuestRequestError } from "../errors.js";
import type { FileType } from "./file-stat.js";
import { joined, type GuestFiles } from "./files.js";
import { pathBytes, shown, SLASH, type GuestBytes } from "./guest-bytes.js";
import { guestTree } from "./guest-tree.js";
import { GuestTreeWriter } from "./guest-tree-writer.js";
import { HostFolder } from "./host-folder.js";
import { codeOf, HostTreeWriter } from "./host-tree-writer.js";
import { hostFolderTree, hostTree } from "./host-tree.js";
import type { SkippedEntry, TreeEntry } from "./tree-entry.js";

export interface CopyOptions {
  readonly signal?: AbortSignal;
  /** Owners and groups are kept. To the host that is for root. */
  readonly keepOwner?: boolean;
  /** A source that is a symbolic link is followed; otherwise the link is copied. */
  readonly followLink?: boolean;
}

export interface CopyOutOptions extends CopyOptions {
  /** Of all files together, `bytes`; a guest that has more fills no disk of the host. */
  readonly maxBytes?: number;
  /** Files, folders and links together. */
  readonly maxEntries?: number;
}

/** What a copy has done. */
export interface CopyReport {
  readonly entries: number;
  /** The first of what was left out, such as sockets and, to the host, devices. */
  readonly skipped: readonly SkippedEntry[];
  readonly skippedCount: number;
}

/** More than an image has; to be raised by who knows the guest. */
const MAX_BYTES = 64 * 2 ** 30;
const MAX_ENTRIES = 1_000_000;
const MAX_SKIPPED = 100;
const ENOENT = 2;

class Skips {
  readonly kept: SkippedEntry[] = [];
  count = 0;

  readonly add = (skipped: SkippedEntry): void => {
    this.count++;
    if (this.kept.length < MAX_SKIPPED) this.kept.push(skipped);
  };
}

/** "dir/.": what is in the folder, not the folder. */
function isContent(path: Buffer): boolean {
  return path.at(-1) === 0x2e && path.at(-2) === SLASH;
}

function hasSlash(path: Buffer): boolean {
  return path.at(-1) === SLASH || isContent(path);
}

function lastName(path: Buffer): Buffer {
  let end = path.length;
  while (end > 0 && path[end - 1] === SLASH) end--;
  return path.subarray(path.lastIndexOf(SLASH, end - 1) + 1, end);
}

/**
 * Copies a file or folder of the guest to the host. Into a folder that is there, it comes under its own name; `/dir/.` is
 * what is in a folder. Links are copied as links, devices and sockets are left out, set-id bits are taken away, and nothing
 * is written outside of the target, whatever the guest says. Rejects with GuestRequestError, AgentError, ConfigError, or the
 * host's own error.
 */
export async function copyOut(
  files: GuestFiles,
  guestPath: GuestBytes,
  hostPath: string,
  options: CopyOutOptions = {},
): Promise<CopyReport> {
  const { signal, keepOwner = false, followLink = false, maxBytes = MAX_BYTES, maxEntries = MAX_ENTRIES } = options;
  const source = pathBytes(guestPath);
  const skips = new Skips();
  const follows = followLink || hasSlash(source);
  const isFolder =
    (await (follows ? files.stat(source, { signal }) : files.lstat(source, { signal }))).type === "directory";
  if (hasSlash(source) && !isFolder) throw new ConfigError([`${shown(source)}: not a folder in the guest`]);
  const target = await hostTarget(hostPath, isFolder);
  const tree = guestTree(files, source, { signal, onSkip: skips.add, maxEntries, followRoot: follows });

  const name = lastName(source);
  const intoIt = target.isFolder && !isContent(source) && name.length > 0;
  const root = await HostFolder.open(target.isFolder ? target.path : dirname(target.path));
  const rootName = target.isFolder ? (intoIt ? name : undefined) : Buffer.from(basename(target.path));
  const writer = new HostTreeWriter(root, { signal, keepOwner, maxBytes, onSkip: skips.add });
  let hasFailed = true;
  try {
    for await (const entry of tree) {
      // The root's name is the host's, or one that has been checked with all others.
      const path =
        rootName === undefined ? entry.path : entry.path.length === 0 ? rootName : joined(rootName, entry.path);
      if (path.length > 0) await writer.add({ ...entry, path });
    }
    hasFailed = false;
  } finally {
    await writer.finish(hasFailed);
    await root.close();
  }
  return { entries: writer.files + writer.folders, skipped: skips.kept, skippedCount: skips.count };
}

/** What is at the target: the user's own path, so links in it are followed. */
async function hostTarget(
  hostPath: string,
  isSourceFolder: boolean,
): Promise<{ readonly path: string; readonly isFolder: boolean }> {
  const path = resolve(hostPath);
  const there = await stat(path).catch((error: unknown) => {
    if (codeOf(error) !== "ENOENT") throw error;
    return undefined;
  });
  if (there?.isDirectory() === true) return { path, isFolder: true };
  if (there !== undefined && isSourceFolder)
    throw new ConfigError([`${hostPath} is no folder, and a folder is to be copied there`]);
  if (/\/\.?$/.test(hostPath) && (there !== undefined || !isSourceFolder)) {
    throw new ConfigError([`${hostPath}: there is no such folder`]);
  }
  return { path, isFolder: false };
}

/**
 * Copies a file or folder of the host into the guest, with the same meanings. Links are copied as links; files belong to
 * root there, unless `keepOwner` is set.
 */
export async function copyIn(
  files: GuestFiles,
  hostPath: string,
  guestPath: GuestBytes,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const { signal, keepOwner = false, followLink = false } = options;
  const target = pathBytes(guestPath);
  const skips = new Skips();
  const source = Buffer.from(hostPath);
  const path = resolve(hostPath);
  const parent = await HostFolder.open(dirname(path));
  let opened: HostFolder | undefined;
  try {
    const name = Buffer.from(basename(path));
    const follows = followLink || hasSlash(source) || name.length === 0;
    const isFolder = follows ? (await stat(path)).isDirectory() : (await parent.lstat(name)).isDirectory();
    if (hasSlash(source) && !isFolder) throw new ConfigError([`${hostPath}: not a folder`]);
    const there = await guestType(files, target, signal);
    if (there !== undefined && there !== "directory" && isFolder) {
      throw new ConfigError([`${shown(target)} is no folder in the guest, and a folder is to be copied there`]);
    }
    if (hasSlash(target) && there !== "directory" && !(there === undefined && isFolder)) {
      throw new ConfigError([`${shown(target)}: there is no such folder in the guest`]);
    }
    const treeOptions = { signal, onSkip: skips.add };
    if (isFolder && follows) opened = await HostFolder.open(path);
    const tree =
      opened !== undefined
        ? hostFolderTree(opened, treeOptions)
        : follows
          ? followedFile(path)
          : hostTree(parent, name, treeOptions);

    const intoIt = there === "directory" && !isContent(source) && name.length > 0;
    const trimmed = withoutSlash(target);
    const root = there === "directory" ? trimmed : parentOf(trimmed);
    const rootName = there === "directory" ? (intoIt ? name : undefined) : lastName(trimmed);
    const writer = new GuestTreeWriter(files, root, { signal, keepOwner, onSkip: skips.add });
    try {
      for await (const entry of tree) {
        const own =
          rootName === undefined ? entry.path : entry.path.length === 0 ? rootName : joined(rootName, entry.path);
        if (own.length > 0) await writer.add({ ...entry, path: own });
      }
      await writer.finish();
    } finally {
      await writer.settle();
    }
    return { entries: writer.entries, skipped: skips.kept, skippedCount: skips.count };
  } finally {
    await opened?.close();
    await parent.close();
  }
}

async function guestType(
  files: GuestFiles,
  path: Buffer,
  signal: AbortSignal | undefined,
): Promise<FileType | undefined> {
  try {
    return (await files.stat(path, { signal })).type;
  } catch (error) {
    if (error instanceof GuestRequestError && error.errno === ENOENT) return undefined;
    throw error;
  }
}

function withoutSlash(path: Buffer): Buffer {
  let end = path.length;
  while (end > 1 && (path[end - 1] === SLASH || isContent(path.subarray(0, end)))) end--;
  return path.subarray(0, end);
}

function parentOf(path: Buffer): Buffer {
  const slash = path.lastIndexOf(SLASH);
  return slash <= 0 ? Buffer.from("/") : path.subarray(0, slash);
}

/** A file behind a link that the user has named. */
async function* followedFile(path: string): AsyncGenerator<TreeEntry, void, undefined> {
  const handle: FileHandle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { mode, uid, gid, size, mtimeNs } = await handle.stat({ bigint: true });
    const content = handle.createReadStream({ autoClose: false, end: Math.max(0, Number(size) - 1) });
    yield {
      path: Buffer.alloc(0),
      type: "file",
      mode: Number(mode & 0o7777n),
      uid: Number(uid),
      gid: Number(gid),
      mtimeNs,
      size: Number(size),
      target: undefined,
      major: 0,
      minor: 0,
      content: size === 0n ? undefined : (content as AsyncIterable<Uint8Array>),
    };
  } finally {
    await handle.close();
  }
}
