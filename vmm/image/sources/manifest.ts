// Manifests: what an image consists of. image-spec v1.1, "Image Manifest" and "Image Index"; Docker's distribution has the
// same under names of its own.
import { printable } from "../../config/show.js";
import { ImageError } from "../../errors.js";
import { digitsOf, Json } from "../json.js";
import type { ImageLimits } from "../types.js";

export const INDEX_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
export const MANIFEST_TYPES = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];
const MAX_MANIFESTS = 1000;

export interface Descriptor {
  readonly mediaType: string;
  /** 64 hexadecimal digits. */
  readonly digest: string;
  /** `bytes` */
  readonly size: number;
}

export interface IndexEntry extends Descriptor {
  readonly os: string;
  readonly architecture: string;
  /** org.opencontainers.image.ref.name */
  readonly name: string;
}

export type Manifest =
  | { readonly is: "image"; readonly config: Descriptor; readonly layers: readonly Descriptor[] }
  | { readonly is: "index"; readonly entries: readonly IndexEntry[] };

/** `what` names it in messages. Throws ImageError. */
export function readManifest(bytes: Uint8Array, what: string, limits: ImageLimits): Manifest {
  const json = Json.parse(bytes, what, limits.jsonBytes);
  const version = json.at("schemaVersion");
  if (!version.isMissing && version.number() !== 2) throw version.wrong("2, the only version that is known");
  if (!json.at("manifests").isMissing) {
    return { is: "index", entries: json.at("manifests").list(MAX_MANIFESTS).map(readEntry) };
  }
  const artifact = json.at("artifactType").optionalText();
  const layers = json.at("layers").list(limits.layers).map(readDescriptor);
  const config = readDescriptor(json.at("config"));
  if (artifact !== "" || !isImageConfig(config.mediaType)) {
    throw new ImageError(`${what}: no image, but ${printable(artifact === "" ? config.mediaType : artifact)}`);
  }
  return { is: "image", config, layers };
}

function isImageConfig(mediaType: string): boolean {
  return (
    mediaType === "application/vnd.oci.image.config.v1+json" ||
    mediaType === "application/vnd.docker.container.image.v1+json" ||
    mediaType === ""
  );
}

function readDescriptor(json: Json): Descriptor {
  return {
    mediaType: json.at("mediaType").optionalText(),
    digest: digitsOf(json.at("digest").digest()),
    size: json.at("size").number(),
  };
}

function readEntry(json: Json): IndexEntry {
  const platform = json.at("platform");
  const annotations = json.at("annotations");
  return {
    ...readDescriptor(json),
    os: platform.isMissing ? "" : platform.at("os").optionalText(),
    architecture: platform.isMissing ? "" : platform.at("architecture").optionalText(),
    name: annotations.isMissing ? "" : annotations.at("org.opencontainers.image.ref.name").optionalText(),
  };
}

/** The one for this processor. Throws ImageError, with those that there are. */
export function chooseEntry(entries: readonly IndexEntry[], what: string): IndexEntry {
  const fits = ({ os, architecture }: IndexEntry): boolean => os === "linux" && architecture === "amd64";
  // An index without platforms has one image, or who made it did not say.
  const plain = entries.filter(({ os, architecture }) => os === "" && architecture === "");
  const found = entries.find(fits) ?? (plain.length === 1 ? plain[0] : undefined);
  if (found !== undefined) return found;
  const there = [...new Set(entries.map(({ os, architecture }) => printable(`${os}/${architecture}`)))]
    .slice(0, 20)
    .join(", ");
  throw new ImageError(`${what}: nothing for linux/amd64, only for ${there === "" ? "nobody" : there}`);
}
