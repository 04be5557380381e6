// Container images, archives and folders become a guest's root: one read-only erofs file system on a disk of parts, kept
// in the user's cache. docs/images.md.
import { statSync } from "node:fs";
import { join } from "node:path";
import { ImageError } from "../errors.js";
import { DATA_FILE, DIGITS64, IMAGE_FILE, ImageCache, META_FILE } from "./cache.js";
import { evict, sizeOf } from "./eviction.js";
import { findSource, type Found } from "./find-source.js";
import { holdImage, readStored, type HeldImage } from "./image-store.js";
import { DEFAULT_LIMITS } from "./limits.js";
import { allNames, findName, removeName, writeName, type ImageName } from "./names.js";
import type { PrepareContext } from "./prepare.js";
import { formatReference, parseReference, type Reference } from "./references.js";
import { showBytes } from "./show-bytes.js";
import type { ImageSummary, PreparedImage, PrepareOptions } from "./types.js";

export type {
  ImageConfig,
  ImageLimits,
  ImageProgress,
  ImageSummary,
  PreparedImage,
  PrepareOptions,
  PullPolicy,
} from "./types.js";

/** The shortest start of an id that names an image. */
const MIN_ID_DIGITS = 6;
const ID_START = /^(?:sha256:)?([0-9a-f]{6,64})$/;

/**
 * Brings an image into the cache, if it is not there, and holds it until it is released. References are those of skopeo:
 * docs/images.md. Throws ImageError; HostError where there is no place for a cache; and the signal's reason.
 */
export async function prepareImage(reference: string, options: PrepareOptions = {}): Promise<PreparedImage> {
  options.signal?.throwIfAborted();
  return withCache(options, async (context) => {
    const byId = await holdById(reference, context.cache);
    if (byId !== undefined) return prepared(reference, byId);
    const parsed = parseReference(reference);
    const found = await findSource(parsed, options.pull ?? "missing", {
      ...context,
      onDownload: (done, total) => options.onProgress?.({ phase: "download", done, total }),
    });
    if (found.is === "folder") return prepared(reference, await folderImage(found.path, context));
    const there = found.id === undefined ? undefined : await holdImage(context.cache, found.id);
    return prepared(reference, there ?? (await brought(parsed, found, context)));
  });
}

/** The same of a folder of this host: the tree below it, as it is now. */
export async function prepareDirectory(path: string, options: PrepareOptions = {}): Promise<PreparedImage> {
  options.signal?.throwIfAborted();
  return withCache(options, async (context) => prepared(path, await folderImage(path, context)));
}

/** What the cache has, the last used first. */
export async function listImages(options: Pick<PrepareOptions, "cache"> = {}): Promise<ImageSummary[]> {
  return withCache(options, ({ cache }) => {
    const names = allNames(cache);
    const images = cache.imageIds().flatMap((id) => {
      const stored = readStored(cache, id);
      return stored === undefined ? [] : [{ id, stored }];
    });
    const users = new Map<string, number>();
    for (const { stored } of images) {
      for (const diffId of new Set(stored.diffIds)) users.set(diffId, (users.get(diffId) ?? 0) + 1);
    }
    const summaries = images.map(({ id, stored }): ImageSummary => {
      const own = stored.diffIds.filter((diffId) => users.get(diffId) === 1);
      return {
        id,
        references: names.filter((name) => name.id === id).map((name) => name.reference),
        bytes: stored.metaBytes + stored.parts.reduce((sum, { bytes }) => sum + bytes, 0),
        ownBytes:
          sizeOf(cache.image(id), [META_FILE]) +
          own.reduce((sum, diffId) => sum + sizeOf(cache.layer(diffId), [DATA_FILE]), 0),
        created: stored.created,
        used: (
          statSync(join(cache.image(id), IMAGE_FILE), { throwIfNoEntry: false })?.mtime ?? new Date(0)
        ).toISOString(),
        isInUse: cache.isUsed(id),
      };
    });
    return Promise.resolve(summaries.sort((a, b) => (a.used < b.used ? 1 : -1)));
  });
}

/**
 * Removes what a reference, or the start of an id, leads to: the name, and the image with its layers once nothing else
 * leads to it. Throws ImageError if there is none, or somebody uses it.
 */
export async function removeImage(reference: string, options: Pick<PrepareOptions, "cache"> = {}): Promise<void> {
  return withCache(options, ({ cache, limits }) => {
    const byId = idOf(reference, cache);
    const name = byId === undefined ? nameOf(reference, cache) : undefined;
    const id = byId ?? name?.id;
    if (id === undefined) throw new ImageError(`${showBytes(reference)}: no such image in the cache`);
    const others = allNames(cache).filter((other) => other.id === id && other.reference !== name?.reference);
    if (name !== undefined && others.length > 0) removeName(cache, name.reference);
    else {
      if (!cache.removeImage(id)) {
        throw new ImageError(`${showBytes(reference)}: in use`, { cure: "end the VMs that run from it first" });
      }
      for (const { reference: gone } of name === undefined ? others : [name]) removeName(cache, gone);
    }
    evict(cache, limits.cacheBytes, true);
    return Promise.resolve();
  });
}

async function withCache<Result>(
  { limits, signal, onProgress, cache: folder }: PrepareOptions,
  use: (context: PrepareContext) => Promise<Result>,
): Promise<Result> {
  const cache = await ImageCache.open(folder);
  try {
    return await use({ cache, limits: { ...DEFAULT_LIMITS, ...limits }, signal, onProgress });
  } finally {
    cache.close();
  }
}

async function brought(
  reference: Reference,
  found: Found & { readonly is: "source" },
  context: PrepareContext,
): Promise<HeldImage> {
  // One that is there needs none of it.
  const { prepareSource } = await import("./prepare.js");
  const source = await found.open();
  try {
    const held = await prepareSource(source, context);
    writeName(context.cache, { reference: formatReference(reference), id: held.id, stamp: found.stamp ?? "" });
    return held;
  } finally {
    await source.close();
  }
}

async function folderImage(path: string, context: PrepareContext): Promise<HeldImage> {
  const { prepareFolder } = await import("./folder.js");
  return prepareFolder(path, context);
}

function prepared(reference: string, held: HeldImage): PreparedImage {
  const { id, manifestPath, bytes, stored } = held;
  return { id, reference, manifestPath, bytes, config: stored.config, release: () => held.release() };
}

async function holdById(text: string, cache: ImageCache): Promise<HeldImage | undefined> {
  const id = idOf(text, cache);
  return id === undefined ? undefined : holdImage(cache, id);
}

/** An image by the start of its id, if that is one's alone. */
function idOf(text: string, cache: ImageCache): string | undefined {
  const [, digits = ""] = ID_START.exec(text) ?? [];
  if (digits.length < MIN_ID_DIGITS) return undefined;
  const found = cache.imageIds().filter((id) => id.startsWith(digits));
  const [id] = found;
  return found.length === 1 && id !== undefined && DIGITS64.test(id) ? id : undefined;
}

function nameOf(text: string, cache: ImageCache): ImageName | undefined {
  // A file that has gone is no reason to keep what was made of it.
  const asWritten = allNames(cache).find(({ reference }) => reference === text);
  if (asWritten !== undefined) return asWritten;
  const parsed = parseReference(text);
  return findName(cache, parsed);
}
