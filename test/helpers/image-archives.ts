// Images as files for tests: layers of tar items in the forms that Docker and OCI have.
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { tarOf, type TarItem } from "./tar-builder.js";

export interface MadeImage {
  readonly layers: readonly (Buffer | readonly TarItem[])[];
  readonly config?: object;
  /** Fields of the configuration beside "config". */
  readonly more?: object;
  /** How a layer lies there; default: as it is. */
  readonly pack?: (tar: Buffer, index: number) => Buffer;
  readonly tags?: readonly string[];
}

export function sha256(bytes: Buffer | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function tars({ layers }: MadeImage): Buffer[] {
  return layers.map((layer) => (Buffer.isBuffer(layer) ? layer : tarOf(layer)));
}

export function configOf(image: MadeImage): Buffer {
  return Buffer.from(
    JSON.stringify({
      architecture: "amd64",
      os: "linux",
      config: image.config ?? {},
      rootfs: { type: "layers", diff_ids: tars(image).map((tar) => `sha256:${sha256(tar)}`) },
      ...image.more,
    }),
  );
}

/** An archive as of `docker save`, of one image or several. */
export function dockerArchive(...images: readonly MadeImage[]): Buffer {
  const items: TarItem[] = [];
  const manifest = images.map((image) => {
    const config = configOf(image);
    const layers = tars(image).map((tar, index) => image.pack?.(tar, index) ?? tar);
    items.push({ name: `${sha256(config)}.json`, body: config });
    for (const layer of layers) items.push({ name: `${sha256(layer)}/layer.tar`, body: layer });
    return {
      Config: `${sha256(config)}.json`,
      RepoTags: image.tags ?? null,
      Layers: layers.map((layer) => `${sha256(layer)}/layer.tar`),
    };
  });
  return tarOf([...items, { name: "manifest.json", body: JSON.stringify(manifest) }]);
}

export interface OciFiles {
  readonly files: ReadonlyMap<string, Buffer>;
  readonly manifest: Buffer;
}

/** Files of an OCI layout by their paths. */
export function ociFiles(image: MadeImage, name = ""): OciFiles {
  const files = new Map<string, Buffer>();
  const add = (bytes: Buffer, mediaType: string): { mediaType: string; digest: string; size: number } => {
    files.set(`blobs/sha256/${sha256(bytes)}`, bytes);
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  const pack = image.pack ?? ((tar: Buffer) => gzipSync(tar));
  const layers = tars(image).map((tar, index) => add(pack(tar, index), "application/vnd.oci.image.layer.v1.tar+gzip"));
  const config = add(configOf(image), "application/vnd.oci.image.config.v1+json");
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers }));
  const descriptor = add(manifest, "application/vnd.oci.image.manifest.v1+json");
  const annotations = name === "" ? {} : { annotations: { "org.opencontainers.image.ref.name": name } };
  files.set(
    "index.json",
    Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ ...descriptor, ...annotations }] })),
  );
  files.set("oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
  return { files, manifest };
}

export function writeFiles(folder: string, files: ReadonlyMap<string, Buffer>): void {
  for (const [path, bytes] of files) {
    mkdirSync(join(folder, path, ".."), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
}

export function tarOfFiles(files: ReadonlyMap<string, Buffer>): Buffer {
  return tarOf([...files].map(([name, body]) => ({ name, body })));
}
