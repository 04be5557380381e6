// Writes a tree into the guest, many requests under way at once. Nothing is written through a link that the tree itself, or
// the guest, has put into its way; what is there under a name is replaced, but for folders, which stay.
import { ConfigError, GuestRequestError } from "../errors.js";
import { joined, type GuestFiles } from "./files.js";
import { bytesOf, shown, type GuestBytes } from "./guest-bytes.js";
import { keyOf, namesOf, pathOf, type TreeEntry, type TreeOptions } from "./tree-entry.js";

export interface GuestWriterOptions extends TreeOptions {
  /** Owners and groups are kept; otherwise all belongs to root, or to `owner`. */
  readonly keepOwner?: boolean;
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/** Requests under way at once. */
const AT_ONCE = 32;
/** Files up to this are kept until they are written, so that what is in their way can be removed first. */
const SMALL = 32_768;
const EEXIST = 17;
const ENOENT = 2;
const SET_ID = 0o6000;
const FOLDER_MODE = 0o755;

export class GuestTreeWriter {
  readonly #files: GuestFiles;
  readonly #root: Buffer;
  readonly #options: GuestWriterOptions;
  /** Folders that are known to be folders, by path from the root. */
  readonly #folders = new Set<string>([""]);
  /** What is under way, by path from the root. */
  readonly #busy = new Map<string, Promise<void>>();
  /** Folders' attributes, set at the end: what is written into a folder changes its time. */
  readonly #later: TreeEntry[] = [];
  #problem: { readonly error: unknown } | undefined;
  entries = 0;

  /** `root` is a folder of the guest that is there. */
  constructor(files: GuestFiles, root: GuestBytes, options: GuestWriterOptions = {}) {
    this.#files = files;
    this.#root = bytesOf(root);
    this.#options = options;
  }

  /** Writes one entry; may return before it is written. Rejects with the error of an earlier one, too. */
  async add(entry: TreeEntry): Promise<void> {
    this.#check();
    this.#options.signal?.throwIfAborted();
    this.entries++;
    const names = namesOf(entry.path);
    if (names.length === 0) {
      if (entry.type === "directory") this.#later.push(entry);
      return;
    }
    const path = pathOf(names);
    const key = keyOf(path);
    await this.#enter(names.slice(0, -1));
    await this.#busy.get(key);
    if (entry.type === "directory") {
      await this.#makeFolder(path, key);
      this.#later.push({ ...entry, path });
      return;
    }
    if (this.#folders.has(key)) await this.#forget(path, key);
    await this.#start(entry, path, key);
  }

  /** Waits for all, then sets what is still to be set. */
  async finish(): Promise<void> {
    await this.#all();
    // Later entries of a folder are later in the list: what is inside comes first.
    for (const entry of this.#later.toReversed()) {
      await this.#run(keyOf(entry.path), () => this.#setAttributes(entry, entry.path, true));
    }
    await this.#all();
  }

  /** Waits until nothing is under way, whatever became of it. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#busy.values());
  }

  #check(): void {
    if (this.#problem !== undefined) throw this.#problem.error;
  }

  async #all(): Promise<void> {
    await this.settle();
    this.#check();
  }

  /** Runs something once fewer than AT_ONCE are under way. */
  async #run(key: string, action: () => Promise<void>): Promise<void> {
    while (this.#busy.size >= AT_ONCE) await Promise.race(this.#busy.values());
    this.#check();
    const done = action().then(
      () => {
        this.#busy.delete(key);
      },
      (error: unknown) => {
        this.#busy.delete(key);
        this.#problem ??= { error };
      },
    );
    this.#busy.set(key, done);
  }

  #at(path: Buffer): Buffer {
    return path.length === 0 ? this.#root : joined(this.#root, path);
  }

  /** Sees to it that the folders on the way are folders, and no links to elsewhere. */
  async #enter(names: readonly Buffer[]): Promise<void> {
    for (let count = 1; count <= names.length; count++) {
      const path = pathOf(names.slice(0, count));
      const key = keyOf(path);
      await this.#busy.get(key);
      if (this.#folders.has(key)) continue;
      this.#check();
      if (!(await this.#isFolder(path))) {
        await this.#files.mkdir(this.#at(path), { mode: FOLDER_MODE, signal: this.#options.signal });
      }
      this.#folders.add(key);
    }
  }

  /** False if nothing is there. Throws for anything but a folder. */
  async #isFolder(path: Buffer): Promise<boolean> {
    try {
      const { type } = await this.#files.lstat(this.#at(path), { signal: this.#options.signal });
      if (type === "directory") return true;
      throw new ConfigError([`${shown(this.#at(path))} is a ${type} in the guest: nothing is written through it`]);
    } catch (error) {
      if (error instanceof GuestRequestError && error.errno === ENOENT) return false;
      throw error;
    }
  }

  async #makeFolder(path: Buffer, key: string): Promise<void> {
    if (this.#folders.has(key)) return;
    const at = this.#at(path);
    const { signal } = this.#options;
    await this.#replacing(
      path,
      () => this.#files.mkdir(at, { mode: FOLDER_MODE, signal }),
      async () => (await this.#files.lstat(at, { signal })).type === "directory",
    );
    this.#folders.add(key);
  }

  /** Something else takes a folder's place: nothing below it is known any more. */
  async #forget(path: Buffer, key: string): Promise<void> {
    await this.#all();
    await this.#files.remove(this.#at(path), { signal: this.#options.signal });
    for (const folder of [...this.#folders]) {
      if (folder === key || folder.startsWith(`${key}/`)) this.#folders.delete(folder);
    }
    for (let index = this.#later.length - 1; index >= 0; index--) {
      const own = keyOf(this.#later[index]?.path ?? Buffer.alloc(0));
      if (own === key || own.startsWith(`${key}/`)) this.#later.splice(index, 1);
    }
  }

  async #start(entry: TreeEntry, path: Buffer, key: string): Promise<void> {
    const at = this.#at(path);
    const { signal } = this.#options;
    const mode = entry.mode & 0o7777;
    switch (entry.type) {
      case "file":
        await this.#startFile(entry, path, key);
        return;
      case "symlink":
        await this.#run(key, async () => {
          await this.#replacing(path, () => this.#files.symlink(entry.target ?? Buffer.alloc(0), at, { signal }));
          await this.#setAttributes(entry, path, false);
        });
        return;
      case "hardlink": {
        const target = namesOf(entry.target ?? Buffer.alloc(0));
        if (target.length === 0) throw new ConfigError([`${shown(path)}: a hard link without the other name`]);
        await this.#all();
        await this.#enterExisting(target.slice(0, -1));
        await this.#run(key, () =>
          this.#replacing(path, () => this.#files.link(this.#at(pathOf(target)), at, { signal })),
        );
        return;
      }
      case "character-device":
      case "block-device":
      case "fifo": {
        const { type, major, minor } = entry;
        await this.#run(key, async () => {
          await this.#replacing(path, () => this.#files.mknod(at, type, { mode, major, minor, signal }));
          await this.#setAttributes(entry, path, true);
        });
        return;
      }
      case "directory":
        throw new TypeError("A folder is no file");
    }
  }

  /** As #enter, and nothing is made. */
  async #enterExisting(names: readonly Buffer[]): Promise<void> {
    for (let count = 1; count <= names.length; count++) {
      const path = pathOf(names.slice(0, count));
      if (this.#folders.has(keyOf(path))) continue;
      if (!(await this.#isFolder(path)))
        throw new ConfigError([`${shown(path)} is not there, and a hard link leads to it`]);
    }
  }

  async #startFile(entry: TreeEntry, path: Buffer, key: string): Promise<void> {
    const at = this.#at(path);
    const { signal } = this.#options;
    const owner = this.#ownerOf(entry);
    const options = { mode: entry.mode & 0o7777, setMode: true, exclusive: true, follow: false, signal, owner };
    if (entry.size <= SMALL) {
      const content = await collect(entry);
      await this.#run(key, async () => {
        await this.#replacing(path, () => this.#files.write(at, content, options));
        await this.#setAttributes(entry, path, true, owner !== undefined);
      });
      return;
    }
    // Its content comes once: what is in the way goes first, and the archive waits until it is written.
    await this.#files.remove(at, { force: true, signal });
    await this.#files.write(at, limited(entry), options);
    await this.#run(key, () => this.#setAttributes(entry, path, true, owner !== undefined));
  }

  /** Makes something; what is in its way is removed before a second try, unless `isFine` finds it fine. */
  async #replacing(path: Buffer, make: () => Promise<void>, isFine?: () => Promise<boolean>): Promise<void> {
    try {
      await make();
      return;
    } catch (error) {
      if (!(error instanceof GuestRequestError) || error.errno !== EEXIST) throw error;
    }
    if (isFine !== undefined && (await isFine())) return;
    await this.#files.remove(this.#at(path), { force: true, signal: this.#options.signal });
    await make();
  }

  #ownerOf({ uid, gid }: TreeEntry): { readonly uid: number; readonly gid: number } | undefined {
    return this.#options.keepOwner === true ? { uid, gid } : this.#options.owner;
  }

  async #setAttributes(entry: TreeEntry, path: Buffer, hasMode: boolean, hasOwner = false): Promise<void> {
    const { mode, mtimeNs, type } = entry;
    // A file's mode has been set with its content; a new owner takes set-id bits away.
    const setsMode = hasMode && (type !== "file" || (mode & SET_ID) !== 0);
    await this.#files.setAttributes(
      this.#at(path),
      {
        times: { atime: mtimeNs, mtime: mtimeNs },
        mode: setsMode ? mode & 0o7777 : undefined,
        owner: hasOwner ? undefined : this.#ownerOf(entry),
      },
      { follow: false, signal: this.#options.signal },
    );
  }
}

async function collect(entry: TreeEntry): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of limited(entry)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function* limited({ content, size, path }: TreeEntry): AsyncGenerator<Uint8Array, void, undefined> {
  let left = size;
  for await (const chunk of content ?? []) {
    left -= chunk.length;
    if (left < 0) throw new ConfigError([`${shown(path)}: has more bytes than it was said to have`]);
    yield chunk;
  }
}
