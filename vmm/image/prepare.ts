// From a source to an image in the cache: layers that are missing are brought there, then merged.
import { ImageError } from "../errors.js";
import { sha256 } from "../sys/sha256.js";
import { evict } from "./eviction.js";
import { readImageConfig } from "./image-config.js";
import { buildImage } from "./build-image.js";
import { holdImage, type HeldImage } from "./image-store.js";
import { digitsOf } from "./json.js";
import { importLayer, storedBytes } from "./layer-store.js";
import type { ImageCache } from "./cache.js";
import type { ImageSource } from "./sources/source.js";
import { EMPTY_CONFIG, type ImageConfig, type ImageLimits, type ImageProgress } from "./types.js";

export interface PrepareContext {
  readonly cache: ImageCache;
  readonly limits: ImageLimits;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ImageProgress) => void) | undefined;
}

/** The image of a source, held. Throws ImageError. */
export async function prepareSource(source: ImageSource, context: PrepareContext): Promise<HeldImage> {
  const { limits } = context;
  if (source.config === undefined) {
    const [layer] = source.layers;
    if (layer === undefined) throw new ImageError("A root file system without a layer");
    const diffId = await bring(source, [undefined], context);
    return makeOfLayers(diffId, EMPTY_CONFIG, context);
  }
  const { config, diffIds } = readImageConfig(source.config, limits);
  const id = sha256(source.config);
  const there = await holdImage(context.cache, id);
  if (there !== undefined) return there;
  if (diffIds.length !== source.layers.length) {
    throw new ImageError(
      `The image has ${String(source.layers.length)} layers, and its configuration ${String(diffIds.length)}`,
    );
  }
  const digits = await bring(source, diffIds.map(digitsOf), context);
  return make(id, digits, config, context);
}

/** An image without a configuration of its own: of these layers, which are in the cache. */
export async function makeOfLayers(
  diffIds: readonly string[],
  config: ImageConfig,
  context: PrepareContext,
): Promise<HeldImage> {
  const id = sha256(Buffer.from(JSON.stringify(["vmlet root file system", diffIds])));
  return (await holdImage(context.cache, id)) ?? make(id, diffIds, config, context);
}

/** Brings the layers that are missing into the cache; the diff ids of all. */
async function bring(
  source: ImageSource,
  diffIds: readonly (string | undefined)[],
  { cache, limits, signal, onProgress }: PrepareContext,
): Promise<string[]> {
  const isThere = (diffId: string | undefined): boolean =>
    diffId !== undefined && storedBytes(cache, diffId) !== undefined;
  const missing = source.layers.filter((_, index) => !isThere(diffIds[index]));
  const sizes = missing.map(({ size }) => size);
  const total = sizes.includes(undefined) ? undefined : sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
  let done = 0;
  const found: string[] = [];
  for (const [index, layer] of source.layers.entries()) {
    const diffId = diffIds[index];
    // One that the image has twice is there the second time.
    if (diffId !== undefined && isThere(diffId)) {
      found.push(diffId);
      continue;
    }
    const before = done;
    const options = {
      limits,
      signal,
      onBytes: (bytes: number) => {
        done = before + bytes;
        onProgress?.({ phase: "unpack", done, total });
      },
    };
    const { digest, size } = layer;
    found.push(await importLayer(cache, { stream: layer.open(), digest, diffId, size }, options));
  }
  return found;
}

async function make(
  id: string,
  diffIds: readonly string[],
  config: ImageConfig,
  { cache, limits, signal, onProgress }: PrepareContext,
): Promise<HeldImage> {
  onProgress?.({ phase: "index", done: 0, total: 1 });
  await buildImage(cache, { id, diffIds, config, limits, signal });
  const held = await holdImage(cache, id);
  if (held === undefined) throw new ImageError(`Image ${id} was removed while it was made`);
  onProgress?.({ phase: "index", done: 1, total: 1 });
  evict(cache, limits.cacheBytes, false);
  return held;
}
