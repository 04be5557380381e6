// Names of images as Docker has them: [HOST[:PORT]/]PATH[:TAG][@DIGEST]. distribution/reference: a first part with a dot,
// a colon or "localhost" is a host.
import { ImageError } from "../../errors.js";
import { showBytes } from "../show-bytes.js";

const DEFAULT_HOST = "docker.io";
const DEFAULT_TAG = "latest";
const PATH = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const HOST = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const MAX_LENGTH = 512;

export interface RegistryName {
  /** With its port, if one is written. */
  readonly host: string;
  readonly path: string;
  readonly tag: string | undefined;
  /** "sha256:" and 64 hexadecimal digits. */
  readonly digest: string | undefined;
}

/** Undefined for what is no name. */
export function parseName(text: string): RegistryName | undefined {
  if (text.length > MAX_LENGTH) return undefined;
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !DIGEST.test(digest)) return undefined;
  let rest = at < 0 ? text : text.slice(0, at);
  const colon = rest.lastIndexOf(":");
  let tag: string | undefined;
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) return undefined;
  }
  const slash = rest.indexOf("/");
  const first = slash < 0 ? "" : rest.slice(0, slash);
  const hasHost = /[.:[A-Z]/.test(first) || first === "localhost";
  const host = hasHost ? first : DEFAULT_HOST;
  let path = hasHost ? rest.slice(slash + 1) : rest;
  if (host === DEFAULT_HOST && !path.includes("/")) path = `library/${path}`;
  if (!HOST.test(host) || !PATH.test(path)) return undefined;
  return { host, path, tag: tag ?? (digest === undefined ? DEFAULT_TAG : undefined), digest };
}

/** Throws ImageError. */
export function needName(text: string): RegistryName {
  const name = parseName(text);
  if (name !== undefined) return name;
  throw new ImageError(`${showBytes(text)} is not the name of an image`, { cure: "write [HOST/]NAME[:TAG][@DIGEST]" });
}

/** The same text for all ways to write one name. */
export function formatName({ host, path, tag, digest }: RegistryName): string {
  return `${host}/${path}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** As `formatName` writes it; what is no name stays as it is. */
export function normalName(text: string): string {
  const name = parseName(text);
  return name === undefined ? text : formatName(name);
}
