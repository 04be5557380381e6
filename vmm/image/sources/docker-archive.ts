// What `docker save` writes: manifest.json names configurations and layers by their paths in the archive.
import { ImageError } from "../../errors.js";
import { readImageConfig } from "../image-config.js";
import { Json } from "../json.js";
import { showBytes } from "../show-bytes.js";
import type { ImageLimits } from "../types.js";
import { normalName } from "./registry-name.js";
import type { BlobFolder, ImageSource } from "./source.js";

export const DOCKER_MANIFEST = "manifest.json";
const MAX_IMAGES = 10_000;
const MAX_TAGS = 10_000;
const MAX_PATH = 1000;
/** Of names in a message. */
const SHOWN = 10;

interface Listed {
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

/** `wanted`: NAME:TAG, @INDEX, or "" where there is one image only. Throws ImageError. */
export async function dockerArchive(folder: BlobFolder, wanted: string, limits: ImageLimits): Promise<ImageSource> {
  const what = `${folder.name}: ${DOCKER_MANIFEST}`;
  const list = Json.parse(await folder.readAll(DOCKER_MANIFEST, limits.jsonBytes), what, limits.jsonBytes);
  const images = list.list(MAX_IMAGES).map((image): Listed => ({
    config: image.at("Config").text(MAX_PATH),
    tags: image
      .at("RepoTags")
      .list(MAX_TAGS)
      .map((tag) => tag.text(MAX_PATH)),
    layers: image
      .at("Layers")
      .list(limits.layers)
      .map((layer) => layer.text(MAX_PATH)),
  }));
  const image = choose(folder.name, images, wanted);
  const config = await folder.readAll(image.config, limits.jsonBytes);
  const { diffIds } = readImageConfig(config, limits);
  if (diffIds.length !== image.layers.length) {
    throw new ImageError(
      `${folder.name}: ${String(image.layers.length)} layers, and the configuration has ${String(diffIds.length)}`,
    );
  }
  const layers = await Promise.all(
    image.layers.map(async (path) => ({
      digest: undefined,
      // One that is missing may be in the cache.
      size: (await folder.has(path)) ? await folder.size(path) : undefined,
      open: () => folder.read(path),
    })),
  );
  return { config, layers, close: () => folder.close() };
}

function choose(name: string, images: readonly Listed[], wanted: string): Listed {
  const [, digits] = /^@(\d{1,5})$/.exec(wanted) ?? [];
  const found =
    wanted === ""
      ? images.length === 1
        ? images
        : []
      : digits === undefined
        ? images.filter(({ tags }) => tags.some((tag) => normalName(tag) === normalName(wanted)))
        : images.slice(Number(digits), Number(digits) + 1);
  const [image] = found;
  if (image !== undefined) return image;
  const tags = images.flatMap((listed) => listed.tags).slice(0, SHOWN);
  const there = tags.length === 0 ? `@0 to @${String(images.length - 1)}` : tags.map(showBytes).join(", ");
  if (wanted === "") {
    throw new ImageError(`${name}: ${String(images.length)} images: ${there}`, {
      cure: `say which one: ${name}:NAME`,
    });
  }
  throw new ImageError(`${name}: it has no image ${showBytes(wanted)}, only ${there}`);
}
