// Images in the cache, held while they are used.
import { closeSync, readFileSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { DATA_FILE, DISK_FILE, IMAGE_FILE, META_FILE, type ImageCache } from "./cache.js";
import type { ImageConfig } from "./types.js";

/** What image.json has; another version is made anew. */
export interface StoredImage {
  readonly version: number;
  readonly config: ImageConfig;
  /** Of all layers, the lowest first. */
  readonly diffIds: readonly string[];
  /** `bytes` of meta.erofs. */
  readonly metaBytes: number;
  /** What follows it on the disk. */
  readonly parts: readonly { readonly diffId: string; readonly bytes: number }[];
  /** ISO 8601. */
  readonly created: string;
}

/** Changes with the file system's and the lists' form. */
export const IMAGE_VERSION = 1;

export interface HeldImage {
  readonly id: string;
  readonly stored: StoredImage;
  readonly manifestPath: string;
  /** `bytes` of the disk. */
  readonly bytes: number;
  release(): void;
}

/** An image that the cache has whole; undefined if it has not. */
export async function holdImage(cache: ImageCache, id: string): Promise<HeldImage | undefined> {
  const fd = await cache.hold(id);
  if (fd === undefined) return undefined;
  const stored = readStored(cache, id);
  if (stored === undefined || !isWhole(cache, id, stored)) {
    closeSync(fd);
    return undefined;
  }
  markUsed(cache, id);
  let isHeld = true;
  return {
    id,
    stored,
    manifestPath: join(cache.image(id), DISK_FILE),
    bytes: stored.metaBytes + stored.parts.reduce((sum, { bytes }) => sum + bytes, 0),
    release: () => {
      if (!isHeld) return;
      isHeld = false;
      closeSync(fd);
    },
  };
}

/** Undefined for one that is not there, damaged, or of another version. */
export function readStored(cache: ImageCache, id: string): StoredImage | undefined {
  try {
    const stored = JSON.parse(readFileSync(join(cache.image(id), IMAGE_FILE), "utf8")) as StoredImage;
    return stored.version === IMAGE_VERSION ? stored : undefined;
  } catch {
    return undefined;
  }
}

/** Its file system and its layers are as it says. */
export function isWhole(cache: ImageCache, id: string, { metaBytes, parts }: StoredImage): boolean {
  const sizeOf = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.size;
  return (
    sizeOf(join(cache.image(id), META_FILE)) === metaBytes &&
    parts.every(({ diffId, bytes }) => sizeOf(join(cache.layer(diffId), DATA_FILE)) === bytes)
  );
}

function markUsed(cache: ImageCache, id: string): void {
  const now = new Date();
  utimesSync(join(cache.image(id), IMAGE_FILE), now, now);
}
