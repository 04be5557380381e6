// A folder of a test's own with a cache of images, and what tests ask of both.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ImageError } from "../../vmm/errors.js";
import { prepareImage, type PreparedImage, type PrepareOptions } from "../../vmm/image/index.js";
import { readErofs, readParts, type ReadInode } from "./erofs-reader.js";
import { dockerArchive } from "./image-archives.js";
import type { TarItem } from "./tar-builder.js";

export interface ImageRig {
  /** A path in the folder; "cache" is the cache. */
  readonly at: (name: string) => string;
  /** Prepared and released: the cache keeps it. */
  readonly prepare: (reference: string, options?: PrepareOptions) => Promise<PreparedImage>;
  readonly treeOf: (reference: string, options?: PrepareOptions) => Promise<Map<string, ReadInode>>;
  readonly treeOfLayers: (...layers: (Buffer | readonly TarItem[])[]) => Promise<Map<string, ReadInode>>;
  /** Its error, after which nothing is left behind. */
  readonly refusal: (promise: Promise<unknown>) => Promise<ImageError>;
}

/** In a `describe`: another folder for each of its tests. */
export function imageRig(): ImageRig {
  let folder = "";
  const at = (name: string): string => join(folder, name);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-image-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const prepare = async (reference: string, options: PrepareOptions = {}): Promise<PreparedImage> => {
    const image = await prepareImage(reference, { cache: at("cache"), ...options });
    image.release();
    return image;
  };
  const treeOf = async (reference: string, options: PrepareOptions = {}): Promise<Map<string, ReadInode>> =>
    readErofs(readParts((await prepare(reference, options)).manifestPath));
  return {
    at,
    prepare,
    treeOf,
    treeOfLayers: (...layers) => {
      writeFileSync(at("image.tar"), dockerArchive({ layers }));
      return treeOf(`docker-archive:${at("image.tar")}`);
    },
    refusal: async (promise) => {
      try {
        await promise;
      } catch (error) {
        assert.ok(error instanceof ImageError, String(error));
        assert.deepEqual(readdirSync(join(at("cache"), "tmp")), [], "nothing is left behind");
        return error;
      }
      return assert.fail("was taken");
    },
  };
}

export function textOf(tree: Map<string, ReadInode>, path: string): string | undefined {
  return tree.get(path)?.content.toString("latin1");
}

export function pathsOf(tree: Map<string, ReadInode>): string[] {
  return [...tree.keys()].sort();
}
