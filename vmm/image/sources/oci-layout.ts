// An image in OCI's layout: a folder, or an archive of one. image-spec v1.1, "Image Layout". And skopeo's "dir:", which
// has the same files without folders.
import { ImageError } from "../../errors.js";
import { Json } from "../json.js";
import { checkDigest } from "../layer-store.js";
import { showBytes } from "../show-bytes.js";
import type { ImageLimits } from "../types.js";
import { DIR_MANIFEST, OCI_INDEX, OCI_LAYOUT } from "./layout-files.js";
import { chooseEntry, readManifest, type Descriptor, type IndexEntry, type Manifest } from "./manifest.js";
import { sha256 } from "../../sys/sha256.js";
import type { BlobFolder, ImageSource } from "./source.js";

/** Indexes of indexes. */
const MAX_DEPTH = 4;
const SHOWN = 10;

/** `wanted`: the name in the index, @OCI_INDEX, or "" where there is one image only. Throws ImageError. */
export async function ociLayout(folder: BlobFolder, wanted: string, limits: ImageLimits): Promise<ImageSource> {
  const what = `${folder.name}: ${OCI_LAYOUT}`;
  const version = Json.parse(await folder.readAll(OCI_LAYOUT, limits.jsonBytes), what, limits.jsonBytes).at(
    "imageLayoutVersion",
  );
  if (!/^1\.\d+\.\d+$/.test(version.text())) throw version.wrong("1.0.0");
  const index = readManifest(await folder.readAll(OCI_INDEX, limits.jsonBytes), `${folder.name}: ${OCI_INDEX}`, limits);
  if (index.is !== "index") throw new ImageError(`${folder.name}: ${OCI_INDEX} is no index`);
  let descriptor: Descriptor = choose(folder.name, index.entries, wanted);
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const bytes = await verified(folder, descriptor, limits);
    const manifest = readManifest(bytes, `${folder.name}: manifest ${descriptor.digest}`, limits);
    if (manifest.is === "image") return sourceOf(folder, manifest, blobPath, limits);
    descriptor = chooseEntry(manifest.entries, folder.name);
  }
  throw new ImageError(`${folder.name}: more than ${String(MAX_DEPTH)} indexes in one another`);
}

/** What `skopeo copy … dir:` writes. */
export async function skopeoFolder(folder: BlobFolder, limits: ImageLimits): Promise<ImageSource> {
  const bytes = await folder.readAll(DIR_MANIFEST, limits.jsonBytes);
  const manifest = readManifest(bytes, `${folder.name}: ${DIR_MANIFEST}`, limits);
  if (manifest.is === "image") return sourceOf(folder, manifest, (digest) => digest, limits);
  const entry = chooseEntry(manifest.entries, folder.name);
  // `skopeo copy --all` puts each manifest into a file of its own.
  const path = `${entry.digest}.manifest.json`;
  const inner = await folder.readAll(path, limits.jsonBytes);
  checkDigest(`${folder.name}: ${path}`, sha256(inner), entry.digest);
  const chosen = readManifest(inner, `${folder.name}: ${path}`, limits);
  if (chosen.is !== "image") throw new ImageError(`${folder.name}: ${path} is an index`);
  return sourceOf(folder, chosen, (digest) => digest, limits);
}

function blobPath(digest: string): string {
  return `blobs/sha256/${digest}`;
}

async function verified(folder: BlobFolder, { digest }: Descriptor, limits: ImageLimits): Promise<Buffer> {
  const bytes = await folder.readAll(blobPath(digest), limits.jsonBytes);
  checkDigest(`${folder.name}: ${blobPath(digest)}`, sha256(bytes), digest);
  return bytes;
}

async function sourceOf(
  folder: BlobFolder,
  { config, layers }: Manifest & { is: "image" },
  pathOf: (digest: string) => string,
  limits: ImageLimits,
): Promise<ImageSource> {
  const bytes = await folder.readAll(pathOf(config.digest), limits.jsonBytes);
  checkDigest(`${folder.name}: the configuration`, sha256(bytes), config.digest);
  return {
    config: bytes,
    layers: layers.map(({ digest, size }) => ({ digest, size, open: () => folder.read(pathOf(digest)) })),
    close: () => folder.close(),
  };
}

function choose(name: string, entries: readonly IndexEntry[], wanted: string): IndexEntry {
  const [, digits] = /^@(\d{1,5})$/.exec(wanted) ?? [];
  if (digits !== undefined) {
    const entry = entries[Number(digits)];
    if (entry !== undefined) return entry;
  }
  const found = wanted === "" ? entries : entries.filter((entry) => entry.name === wanted);
  const [first, second] = found;
  if (first !== undefined && second === undefined) return first;
  // The same image for several processors, under one name.
  if (first !== undefined && new Set(found.map((entry) => entry.name)).size === 1) return chooseEntry(found, name);
  const names = entries
    .slice(0, SHOWN)
    .map((entry, index) => (entry.name === "" ? `@${String(index)}` : showBytes(entry.name)));
  const there = names.length === 0 ? "none" : names.join(", ");
  if (wanted !== "") throw new ImageError(`${name}: it has no image ${showBytes(wanted)}, only ${there}`);
  throw new ImageError(`${name}: ${String(entries.length)} images: ${there}`, { cure: `say which one: ${name}:NAME` });
}
