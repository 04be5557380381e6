// Images in the user's cache: layers/<diff id> with a layer's list and contents, images/<id> with the file system made of
// them, names/ with what leads to an image, tmp/ with what is being made. What is there under its own name is whole: it
// was made in tmp/ and moved. Several processes use it at once:
// - whoever prepares an image holds USERS of the file "lock" shared; whoever throws layers away needs it alone.
// - whoever uses an image holds USED of its meta.erofs shared; whoever removes the image needs it alone.
// - whoever makes something holds its folder in tmp/ locked; others are left-overs.
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { HostError, ImageError } from "../errors.js";
import { cacheFolder } from "../host/cache-folder.js";
import { errnoText } from "../host/errno-text.js";
import { isByteLocked, lockByteExclusive, lockByteShared, lockWhole } from "../sys/locks.js";
import { randomBytes } from "../sys/random.js";

const PRIVATE = 0o700;
const USERS = 1;
const USED = 1;
/** The monitor's and QEMU's lock of a disk that is read: virtio/backends/disk-lock.ts. */
const DISK_IS_READ = 100;
const RETRY_MS = 10;
/** `ms`: somebody who has just made a folder in tmp/ has it locked by then. */
const FRESH_MS = 10_000;

export const DIGITS64 = /^[0-9a-f]{64}$/;
export const META_FILE = "meta.erofs";
export const DISK_FILE = "disk.json";
export const IMAGE_FILE = "image.json";
export const DATA_FILE = "data";
export const LIST_FILE = "list";

/** A folder in tmp/ that becomes something, or goes. */
export interface Workplace {
  readonly path: string;
  /** It is now what lies at `path`; false if somebody else has made that meanwhile. */
  become(path: string): boolean;
  close(): void;
}

export class ImageCache {
  readonly folder: string;
  readonly #lock: number;
  #isClosed = false;

  private constructor(folder: string, lock: number) {
    this.folder = folder;
    this.#lock = lock;
  }

  /** Layers stay as long as it is open. Throws HostError and ImageError. */
  static async open(folder: string | undefined): Promise<ImageCache> {
    const path = folder ?? ownFolder();
    try {
      for (const name of ["layers", "images", "names", "tmp"]) {
        mkdirSync(join(path, name), { recursive: true, mode: PRIVATE });
      }
      const lock = openSync(join(path, "lock"), "a+", 0o600);
      const cache = new ImageCache(path, lock);
      while (!tryShared(lock, USERS)) await pause();
      await cache.#removeLeftOvers();
      return cache;
    } catch (error) {
      throw cacheError(path, error);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#lock);
  }

  layer(diffId: string): string {
    return join(this.folder, "layers", diffId);
  }

  image(id: string): string {
    return join(this.folder, "images", id);
  }

  name(hash: string): string {
    return join(this.folder, "names", `${hash}.json`);
  }

  imageIds(): string[] {
    return readdirSync(join(this.folder, "images")).filter((name) => DIGITS64.test(name));
  }

  hasImage(id: string): boolean {
    return existsSync(this.image(id));
  }

  layerIds(): string[] {
    return readdirSync(join(this.folder, "layers")).filter((name) => DIGITS64.test(name));
  }

  newWorkplace(): Workplace {
    for (;;) {
      const path = join(this.folder, "tmp", Buffer.from(randomBytes(16)).toString("hex"));
      mkdirSync(path, { mode: PRIVATE });
      const fd = openSync(path, "r");
      if (!lockWhole(fd) || !isStill(path, fd)) {
        closeSync(fd);
        continue;
      }
      let isOpen = true;
      const close = (): void => {
        if (!isOpen) return;
        isOpen = false;
        rmSync(path, { recursive: true, force: true });
        closeSync(fd);
      };
      return { path, close, become: (target) => moveTo(path, target) };
    }
  }

  /** A descriptor that keeps the image; undefined if there is none. */
  async hold(id: string): Promise<number | undefined> {
    const path = join(this.image(id), META_FILE);
    for (;;) {
      let fd: number;
      try {
        fd = openSync(path, "r");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw cacheError(this.folder, error);
      }
      if (tryShared(fd, USED) && isStill(path, fd)) return fd;
      closeSync(fd);
      await pause();
    }
  }

  /** Removes an image, but not its layers; false if somebody uses it. */
  removeImage(id: string): boolean {
    const path = this.image(id);
    let fd: number;
    try {
      fd = openSync(join(path, META_FILE), "r+");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw cacheError(path, error);
      rmSync(path, { recursive: true, force: true });
      return true;
    }
    try {
      if (!lockByteExclusive(fd, USED) || isByteLocked(fd, DISK_IS_READ)) return false;
      const place = this.newWorkplace();
      renameSync(path, join(place.path, "gone"));
      place.close();
      return true;
    } finally {
      closeSync(fd);
    }
  }

  isUsed(id: string): boolean {
    try {
      const fd = openSync(join(this.image(id), META_FILE), "r+");
      try {
        return isByteLocked(fd, USED) || isByteLocked(fd, DISK_IS_READ);
      } finally {
        closeSync(fd);
      }
    } catch {
      return false;
    }
  }

  /** Whether nobody else prepares an image now, so that layers may go. It stays so until it is closed. */
  becomeAlone(): boolean {
    return lockByteExclusive(this.#lock, USERS);
  }

  /** Others may prepare images again. */
  shareAgain(): void {
    lockByteShared(this.#lock, USERS);
  }

  /** What a process that was ended left in tmp/. */
  async #removeLeftOvers(): Promise<void> {
    const folder = join(this.folder, "tmp");
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      try {
        if (Date.now() - statSync(path).mtimeMs < FRESH_MS) continue;
        const fd = openSync(path, "r");
        try {
          if (lockWhole(fd)) await rm(path, { recursive: true, force: true });
        } finally {
          closeSync(fd);
        }
      } catch (error) {
        // Somebody else was faster.
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
  }
}

/** In words that a user can do something with. */
export function cacheError(path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new ImageError(`${path}: no space left for images`, {
      cause: error,
      cure: "remove images that you do not need, or set VMLET_CACHE to a folder with more space",
    });
  }
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
    return new HostError(`${path}: images cannot be kept here: ${errnoText(code)}`, {
      cause: error,
      cure: "set VMLET_CACHE to a folder of your own",
    });
  }
  return error;
}

function ownFolder(): string {
  const cache = cacheFolder();
  if (cache === undefined) throw new HostError("There is no folder for images: the cache is somebody else's");
  return join(cache, "containers");
}

/** False while somebody has it alone. */
function tryShared(fd: number, byte: number): boolean {
  try {
    lockByteShared(fd, byte);
    return true;
  } catch (error) {
    const { errnoName = "" } = error as { errnoName?: string };
    if (errnoName === "EAGAIN" || errnoName === "EACCES") return false;
    // A file system without locks: then there is one user, it is hoped.
    return true;
  }
}

function isStill(path: string, fd: number): boolean {
  const there = statSync(path, { throwIfNoEntry: false, bigint: true });
  const own = statSync(`/proc/self/fd/${String(fd)}`, { bigint: true });
  return there?.ino === own.ino && there.dev === own.dev;
}

function moveTo(path: string, target: string): boolean {
  try {
    renameSync(path, target);
    return true;
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (code === "ENOTEMPTY" || code === "EEXIST") return false;
    throw error;
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, RETRY_MS));
}
