// What an image says of itself: image-spec v1.1, "Image Configuration"; Docker writes the same with more fields. It comes
// from whoever built the image.
import { printable } from "../config/show.js";
import { ImageError } from "../errors.js";
import { Json } from "./json.js";
import type { ImageConfig, ImageLimits } from "./types.js";

const MAX_ITEMS = 10_000;

export interface ReadConfig {
  readonly config: ImageConfig;
  /** Digests of the layers as they are unpacked, the lowest first. */
  readonly diffIds: readonly string[];
}

/** Throws ImageError for what is no configuration of a Linux image for this processor. */
export function readImageConfig(bytes: Uint8Array, limits: ImageLimits): ReadConfig {
  const json = Json.parse(bytes, "The image's configuration", limits.jsonBytes);
  checkPlatform(json.at("os").optionalText(), json.at("architecture").optionalText());
  const rootfs = json.at("rootfs");
  const diffIds = rootfs.isMissing ? [] : rootfs.at("diff_ids").list(MAX_ITEMS);
  if (diffIds.length > limits.layers) {
    throw new ImageError(`The image has ${String(diffIds.length)} layers, more than ${String(limits.layers)}`);
  }
  const config = json.at("config");
  return {
    config: config.isMissing ? readConfig(new Json({}, config.path)) : readConfig(config),
    diffIds: diffIds.map((item) => item.digest()),
  };
}

export function checkPlatform(os: string, architecture: string): void {
  if ((os === "" || os === "linux") && (architecture === "" || architecture === "amd64")) return;
  throw new ImageError(
    `The image is for ${os === "" ? "linux" : printable(os)}/${printable(architecture)}, not for linux/amd64`,
  );
}

function readConfig(config: Json): ImageConfig {
  const env = texts(config.at("Env"));
  for (const item of env) {
    if (item.indexOf("=") < 1) throw new Json(item, config.at("Env").path).wrong("NAME=VALUE");
  }
  const labels = config.at("Labels");
  return {
    env,
    entrypoint: texts(config.at("Entrypoint")),
    cmd: texts(config.at("Cmd")),
    workingDir: config.at("WorkingDir").optionalText(),
    user: config.at("User").optionalText(),
    exposedPorts: config.at("ExposedPorts").names(MAX_ITEMS),
    volumes: config.at("Volumes").names(MAX_ITEMS),
    // Of an object without a prototype: a label may be called "__proto__".
    labels: Object.assign(
      Object.create(null),
      Object.fromEntries(labels.names(MAX_ITEMS).map((name) => [name, labels.at(name).optionalText()])),
    ) as Record<string, string>,
    stopSignal: config.at("StopSignal").optionalText(),
    hostname: config.at("Hostname").optionalText(),
  };
}

function texts(list: Json): string[] {
  return list.list(MAX_ITEMS).map((item) => item.text());
}
