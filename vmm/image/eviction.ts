// Keeps the cache below its limit, and removes what nobody leads to any more: layers without an image, then images that
// were not used for the longest time. What somebody uses stays.
import { rmSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { DATA_FILE, IMAGE_FILE, LIST_FILE, META_FILE, type ImageCache } from "./cache.js";
import { readStored } from "./image-store.js";
import { allNames, removeName } from "./names.js";

/** `all`: layers without an image go however much room there is. Does nothing while others prepare images. */
export function evict(cache: ImageCache, limit: number, all: boolean): void {
  if (!cache.becomeAlone()) return;
  try {
    let bytes = 0;
    const images = cache.imageIds().map((id) => {
      const own = sizeOf(cache.image(id), [META_FILE]);
      bytes += own;
      return {
        id,
        own,
        usedMs: timeOf(join(cache.image(id), IMAGE_FILE)),
        layers: readStored(cache, id)?.diffIds ?? [],
      };
    });
    const layers = new Map<string, number>();
    for (const diffId of cache.layerIds()) {
      const own = sizeOf(cache.layer(diffId), [DATA_FILE, LIST_FILE]);
      layers.set(diffId, own);
      bytes += own;
    }
    const removeUnused = (): void => {
      const needed = new Set(images.flatMap((image) => image.layers));
      for (const [diffId, own] of layers) {
        if (needed.has(diffId)) continue;
        removeFolder(cache, cache.layer(diffId));
        layers.delete(diffId);
        bytes -= own;
      }
    };
    if (all || bytes > limit) removeUnused();
    images.sort((a, b) => b.usedMs - a.usedMs);
    for (let index = images.length - 1; index >= 0 && bytes > limit; index--) {
      const image = images[index];
      if (image === undefined || !cache.removeImage(image.id)) continue;
      images.splice(index, 1);
      bytes -= image.own;
      removeUnused();
    }
    const left = new Set(images.map(({ id }) => id));
    for (const { reference, id } of allNames(cache)) if (!left.has(id)) removeName(cache, reference);
  } finally {
    cache.shareAgain();
  }
}

/** Moved away first: what is half removed has no name. */
function removeFolder(cache: ImageCache, path: string): void {
  const place = cache.newWorkplace();
  try {
    renameSync(path, join(place.path, "gone"));
  } finally {
    place.close();
  }
  rmSync(path, { recursive: true, force: true });
}

/** `bytes` that files take on the medium: holes take none. */
export function sizeOf(folder: string, files: readonly string[]): number {
  return files.reduce((sum, file) => {
    const stat = statSync(join(folder, file), { throwIfNoEntry: false });
    return sum + (stat?.blocks ?? 0) * 512;
  }, 0);
}

function timeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
