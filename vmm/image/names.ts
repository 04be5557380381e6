// Names that lead to images in the cache: a small file each, replaced as a whole.
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "../sys/sha256.js";
import { DIGITS64, type ImageCache } from "./cache.js";
import { formatReference, type Reference } from "./references.js";

export interface ImageName {
  readonly reference: string;
  readonly id: string;
  /** Changes when the name may lead elsewhere: a digest, or what is known of a file; "" where nothing tells. */
  readonly stamp: string;
}

function readName(cache: ImageCache, reference: string): ImageName | undefined {
  const name = readNameFile(cache.name(hashOf(reference)));
  return name?.reference === reference ? name : undefined;
}

/** What a reference led to the last time; a plain name also what it led to in an engine or a registry. */
export function findName(cache: ImageCache, reference: Reference): ImageName | undefined {
  const found = readName(cache, formatReference(reference));
  if (found !== undefined || reference.is !== "name") return found;
  const { name } = reference;
  const others = (["docker-daemon", "docker"] as const).map((is) => formatReference({ is, name }));
  return others.map((other) => readName(cache, other)).find((other) => other !== undefined);
}

export function writeName(cache: ImageCache, name: ImageName): void {
  const place = cache.newWorkplace();
  try {
    const path = join(place.path, "name");
    writeFileSync(path, JSON.stringify(name), { mode: 0o600 });
    renameSync(path, cache.name(hashOf(name.reference)));
  } finally {
    place.close();
  }
}

export function removeName(cache: ImageCache, reference: string): void {
  rmSync(cache.name(hashOf(reference)), { force: true });
}

export function allNames(cache: ImageCache): ImageName[] {
  const folder = join(cache.folder, "names");
  return readdirSync(folder)
    .filter((file) => file.endsWith(".json"))
    .flatMap((file) => readNameFile(join(folder, file)) ?? []);
}

function hashOf(reference: string): string {
  return sha256(Buffer.from(reference));
}

function readNameFile(path: string): ImageName | undefined {
  try {
    const name = JSON.parse(readFileSync(path, "utf8")) as ImageName;
    return DIGITS64.test(name.id) ? name : undefined;
  } catch {
    return undefined;
  }
}
