// Writes a tree of the guest to the host. The guest decides the names, the order, the types and the sizes; none of it leads
// out of the folder that was given: names are names, folders are entered by their descriptors, links are made and never
// followed, devices are not made, files get no set-id bits, and there is no more than the caller allows.
import type { FileHandle } from "node:fs/promises";
import { ConfigError } from "../errors.js";
import { shown } from "./guest-bytes.js";
import type { HostFolder, Times } from "./host-folder.js";
import { namesOf, type TreeEntry, type TreeOptions } from "./tree-entry.js";

export interface HostWriterOptions extends TreeOptions {
  /** Owners and groups are kept; for root. Otherwise all belongs to the user. */
  readonly keepOwner?: boolean;
  /** Of all files together; more is an error. */
  readonly maxBytes: number;
}

/** rwx bits: a guest makes no set-id program on the host. */
const MODE_MASK = 0o777;
/** What utimensat(2) takes everywhere: the end of the year 2446, of ext4. */
const MAX_TIME = 15_032_385_535;
/** Zeroes of this length become a hole. */
const HOLE = 4096;
const ZEROES = Buffer.alloc(65_536);

interface Level {
  readonly name: Buffer;
  readonly folder: HostFolder;
  /** Set when it is left: a folder's time is that of its last change, and it may be read-only. */
  attributes: TreeEntry | undefined;
}

export class HostTreeWriter {
  readonly #root: HostFolder;
  readonly #options: HostWriterOptions;
  /** The folders from the root down to where the last entry was. */
  readonly #levels: Level[] = [];
  files = 0;
  folders = 0;
  bytes = 0;

  /** `root` stays the caller's. */
  constructor(root: HostFolder, options: HostWriterOptions) {
    this.#root = root;
    this.#options = options;
  }

  /** Writes one entry; its path is not empty. */
  async add(entry: TreeEntry): Promise<void> {
    this.#options.signal?.throwIfAborted();
    const names = namesOf(entry.path);
    const name = names.pop();
    if (name === undefined) throw new TypeError("The root is the caller's");
    const folder = await this.#enter(names);
    switch (entry.type) {
      case "directory":
        await this.#makeFolder(folder, name, entry);
        return;
      case "file":
        await this.#writeFile(folder, name, entry);
        return;
      case "symlink": {
        const { target = Buffer.alloc(0) } = entry;
        await this.#replacing(folder, name, () => folder.symlink(target, name));
        await folder.setLink(name, timesOf(entry), this.#ownerOf(entry));
        return;
      }
      default:
        this.#options.onSkip?.({ path: shown(entry.path), reason: `a ${entry.type}: none is made on the host` });
    }
  }

  /** Sets what is still to be set. To be called once, after an error too. */
  async finish(hasFailed = false): Promise<void> {
    while (this.#levels.length > 0) await this.#leave(hasFailed);
  }

  async #enter(names: readonly Buffer[]): Promise<HostFolder> {
    let common = 0;
    while (common < names.length && this.#levels[common]?.name.equals(names[common] ?? ZEROES) === true) common++;
    while (this.#levels.length > common) await this.#leave();
    for (const name of names.slice(common)) await this.#down(name, undefined);
    return this.#current;
  }

  get #current(): HostFolder {
    return this.#levels.at(-1)?.folder ?? this.#root;
  }

  async #down(name: Buffer, attributes: TreeEntry | undefined): Promise<void> {
    const folder = this.#current;
    try {
      await folder.mkdir(name);
      this.folders++;
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    let child: HostFolder;
    try {
      child = await folder.child(name);
    } catch (error) {
      if (codeOf(error) !== "ELOOP" && codeOf(error) !== "ENOTDIR") throw error;
      throw new ConfigError([`${shown(name)} is no folder on the host, and one of the guest would take its place`]);
    }
    // Kept as it is from the moment it can be closed.
    this.#levels.push({ name: Buffer.from(name), folder: child, attributes });
  }

  async #makeFolder(folder: HostFolder, name: Buffer, entry: TreeEntry): Promise<void> {
    if (folder !== this.#current) throw new TypeError("An entry lies where the last one was entered");
    await this.#down(name, entry);
  }

  async #leave(hasFailed = false): Promise<void> {
    const level = this.#levels.pop();
    if (level === undefined) return;
    try {
      const { attributes } = level;
      if (attributes !== undefined && !hasFailed) {
        await level.folder.set(attributes.mode & MODE_MASK, timesOf(attributes), this.#ownerOf(attributes));
      }
    } finally {
      await level.folder.close();
    }
  }

  async #writeFile(folder: HostFolder, name: Buffer, entry: TreeEntry): Promise<void> {
    const handle = await this.#replacing(folder, name, () => folder.createFile(name));
    try {
      await this.writeContent(handle, entry);
      await this.setFile(handle, entry);
    } finally {
      await handle.close();
    }
  }

  /** What comes of the content, at most as much as the entry has said. Zeroes become holes. */
  async writeContent(handle: FileHandle, { content, size, path }: TreeEntry): Promise<void> {
    let at = 0;
    for await (const chunk of content ?? []) {
      this.#options.signal?.throwIfAborted();
      if (chunk.length > size - at) throw new ConfigError([`${shown(path)}: has more bytes than it was said to have`]);
      this.bytes += chunk.length;
      if (this.bytes > this.#options.maxBytes) {
        throw new ConfigError([`The guest's files have more than ${String(this.#options.maxBytes)} bytes (maxBytes)`]);
      }
      for (let from = 0; from < chunk.length; from += ZEROES.length) {
        const piece = chunk.subarray(from, from + ZEROES.length);
        if (!isHole(piece)) await writeAll(handle, piece, at + from);
      }
      at += chunk.length;
    }
    await handle.truncate(at);
    this.files++;
  }

  async setFile(handle: FileHandle, entry: TreeEntry): Promise<void> {
    const owner = this.#ownerOf(entry);
    if (owner !== undefined) await handle.chown(owner.uid, owner.gid);
    await handle.chmod(entry.mode & MODE_MASK);
    const { atime, mtime } = timesOf(entry);
    await handle.utimes(atime, mtime);
  }

  /** Makes something under a name that may be taken: by a file or link, which goes, or by a folder, which stays. */
  async #replacing<Made>(folder: HostFolder, name: Buffer, make: () => Promise<Made>): Promise<Made> {
    try {
      return await make();
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    if ((await folder.lstat(name)).isDirectory()) {
      throw new ConfigError([`${shown(name)} is a folder on the host, and the guest's is none`]);
    }
    await folder.unlink(name);
    return make();
  }

  #ownerOf({ uid, gid }: TreeEntry): { readonly uid: number; readonly gid: number } | undefined {
    return this.#options.keepOwner === true ? { uid, gid } : undefined;
  }
}

export function codeOf(error: unknown): string {
  const { code } = error as { readonly code?: unknown };
  return typeof code === "string" ? code : "";
}

function timesOf({ mtimeNs }: TreeEntry): Times {
  const mtime = Math.min(MAX_TIME, Math.max(0, Number(mtimeNs) / 1e9));
  return { atime: mtime, mtime };
}

/** Of at most as many bytes as ZEROES has. */
function isHole(chunk: Uint8Array): boolean {
  return chunk.length >= HOLE && ZEROES.compare(chunk, 0, chunk.length, 0, chunk.length) === 0;
}

async function writeAll(handle: FileHandle, chunk: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    const { bytesWritten } = await handle.write(chunk, done, chunk.length - done, at + done);
    done += bytesWritten;
  }
}
