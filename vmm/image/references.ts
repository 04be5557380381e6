// How images are named: as skopeo does, "TRANSPORT:…"; without one, a path that is there, or else a name.
import { existsSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { ImageError } from "../errors.js";
import { formatName, needName, parseName } from "./sources/registry-name.js";
import { showBytes } from "./show-bytes.js";

export type Reference =
  | { readonly is: "docker-archive" | "oci" | "oci-archive"; readonly path: string; readonly image: string }
  /** "file": whatever the file or folder is. */
  | { readonly is: "dir" | "tar" | "file"; readonly path: string }
  /** Name as `formatName` writes it. "name": wherever it is found. */
  | { readonly is: "docker-daemon" | "docker" | "name"; readonly name: string };

const FILES = ["docker-archive", "oci", "oci-archive", "dir", "tar"];
const KNOWN = [...FILES, "docker-daemon", "docker"];
const MAX_LENGTH = 8192;

/** Throws ImageError for what names no image. Files are only looked for where it matters. */
export function parseReference(text: string): Reference {
  if (text === "" || text.length > MAX_LENGTH || text.includes("\0")) {
    throw new ImageError(`${showBytes(text)} is not the name of an image`);
  }
  const [, transport = "", rest = ""] = /^([a-z][a-z-]*):(.*)$/s.exec(text) ?? [];
  switch (transport) {
    case "docker-archive":
    case "oci":
    case "oci-archive":
      return { is: transport, ...splitImage(transport, rest) };
    case "dir":
    case "tar":
      if (rest === "") throw empty(transport);
      return { is: transport, path: resolve(rest) };
    case "docker-daemon":
      return { is: "docker-daemon", name: formatName(needName(rest)) };
    case "docker":
      if (!rest.startsWith("//"))
        throw new ImageError(`${showBytes(text)}: write docker://${rest.replace(/^\/+/, "")}`);
      return { is: "docker", name: formatName(needName(rest.slice(2))) };
  }
  // "alpine:3" looks like a transport, and "./a:b" is a path.
  if (existsSync(text)) return { is: "file", path: resolve(text) };
  const name = parseName(text);
  if (name !== undefined) return { is: "name", name: formatName(name) };
  const isPath = text.startsWith("/") || text.startsWith(".");
  throw new ImageError(
    `${showBytes(text)} is ${isPath ? "not there" : "neither a path that is there nor an image's name"}`,
    {
      cure: isPath ? undefined : `write a name such as alpine:3, or one of ${KNOWN.join(":, ")}:`,
    },
  );
}

/** "PATH[:IMAGE]"; a path with colons is taken as it is if it is there. */
function splitImage(transport: string, rest: string): { path: string; image: string } {
  if (rest === "") throw empty(transport);
  if (existsSync(rest)) return { path: resolve(rest), image: "" };
  for (let colon = rest.indexOf(":"); colon >= 0; colon = rest.indexOf(":", colon + 1)) {
    const path = rest.slice(0, colon);
    if (path !== "" && existsSync(path)) return { path: resolve(path), image: rest.slice(colon + 1) };
  }
  throw new ImageError(`${rest}: no such file or folder`);
}

function empty(transport: string): ImageError {
  return new ImageError(`${transport}: needs a path`);
}

/** One text for all ways to write a reference. */
export function formatReference(reference: Reference): string {
  switch (reference.is) {
    case "docker":
      return `docker://${reference.name}`;
    case "docker-daemon":
      return `docker-daemon:${reference.name}`;
    case "name":
      return reference.name;
    case "dir":
    case "tar":
    case "file":
      return `${reference.is}:${reference.path}`;
    default:
      return `${reference.is}:${reference.path}${reference.image === "" ? "" : `:${reference.image}`}`;
  }
}

export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
