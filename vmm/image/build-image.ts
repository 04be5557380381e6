// Images made of their layers, in the cache.
import { writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { ImageError } from "../errors.js";
import { applyLayer } from "./apply-layer.js";
import { cacheError, DATA_FILE, DISK_FILE, IMAGE_FILE, META_FILE, type ImageCache } from "./cache.js";
import { writeErofs } from "./erofs/write.js";
import { IMAGE_VERSION, isWhole, readStored, type StoredImage } from "./image-store.js";
import { readLayer, storedBytes } from "./layer-store.js";
import { Tree } from "./tree.js";
import { Turns } from "./turns.js";
import type { ImageConfig, ImageLimits } from "./types.js";

export interface BuildImageOptions {
  readonly id: string;
  readonly config: ImageConfig;
  /** All of them are in the cache. */
  readonly diffIds: readonly string[];
  readonly limits: ImageLimits;
  readonly signal?: AbortSignal | undefined;
}

/** Merges the layers into one file system. Throws ImageError. */
export async function buildImage(cache: ImageCache, options: BuildImageOptions): Promise<void> {
  const { id, config, diffIds, limits, signal } = options;
  const turns = new Turns(signal);
  const tree = new Tree(limits.entries);
  for (const [index, diffId] of diffIds.entries()) {
    await turns.run(applyLayer(tree, await readLayer(cache, diffId, turns), index));
  }
  const used = await usedSources(tree, turns);
  // One that is there twice is on the disk twice only if both have something left.
  const lengths = diffIds.map((diffId, index) => (used.has(index) ? lengthOf(cache, diffId) : 0));
  const uuid = createHash("sha256")
    .update(JSON.stringify([IMAGE_VERSION, id, diffIds]))
    .digest();
  const meta = await turns.run(writeErofs({ tree, sources: lengths, uuid }));
  const parts = diffIds.flatMap((diffId, index) => {
    const bytes = lengths[index] ?? 0;
    return bytes === 0 ? [] : [{ diffId, bytes }];
  });
  const stored: StoredImage = {
    version: IMAGE_VERSION,
    config,
    diffIds,
    metaBytes: meta.length,
    parts,
    created: new Date().toISOString(),
  };
  const place = cache.newWorkplace();
  try {
    await writeFile(join(place.path, META_FILE), meta, { mode: 0o600 });
    signal?.throwIfAborted();
    const list = {
      parts: [
        { path: META_FILE, bytes: meta.length },
        ...parts.map(({ diffId, bytes }) => ({ path: `../../layers/${diffId}/${DATA_FILE}`, bytes })),
      ],
    };
    writeFileSync(join(place.path, DISK_FILE), JSON.stringify(list), { mode: 0o600 });
    writeFileSync(join(place.path, IMAGE_FILE), JSON.stringify(stored), { mode: 0o600 });
    if (place.become(cache.image(id))) return;
    // Somebody else has made it meanwhile, or what lies there is not whole.
    const found = readStored(cache, id);
    if (found !== undefined && isWhole(cache, id, found)) return;
    if (!cache.removeImage(id) || !place.become(cache.image(id))) {
      throw new ImageError(`Image ${id} is damaged in the cache, and in use: it cannot be made anew`, {
        cure: "end the VMs that use it",
      });
    }
  } catch (error) {
    throw cacheError(cache.folder, error);
  } finally {
    place.close();
  }
}

function lengthOf(cache: ImageCache, diffId: string): number {
  const bytes = storedBytes(cache, diffId);
  if (bytes === undefined) throw new ImageError(`Layer ${diffId} is damaged in the cache`);
  return bytes;
}

/** The layers of which some contents are left. */
async function usedSources(tree: Tree, turns: Turns): Promise<Set<number>> {
  const used = new Set<number>();
  const folders = [tree.root];
  for (const { entries } of folders) {
    for (const inode of entries?.values() ?? []) {
      if (inode.entries !== undefined) folders.push(inode);
      else if (inode.content !== undefined && inode.content.size > 0) used.add(inode.content.source);
    }
    if (turns.isOver) await turns.next();
  }
  return used;
}
