// Where a reference leads. Each kind of source is loaded only when it is asked for.
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { ImageError } from "../errors.js";
import { findName } from "./names.js";
import { formatReference, isFolder, type Reference } from "./references.js";
import { needName } from "./sources/registry-name.js";
import { Archive, stampOf, streamOf } from "./sources/archive.js";
import { DIR_MANIFEST, DIR_VERSION, OCI_INDEX, OCI_LAYOUT } from "./sources/layout-files.js";
import { PlainFolder } from "./sources/plain-folder.js";
import type { ImageSource, SourceContext } from "./sources/source.js";
import type { PullPolicy } from "./types.js";

export type Found =
  | {
      readonly is: "source";
      /** What the name led to the last time, if that cannot have changed. */
      readonly id?: string | undefined;
      /** Changes when the name leads elsewhere; undefined where nothing tells. */
      readonly stamp: string | undefined;
      readonly open: () => Promise<ImageSource>;
    }
  /** The tree below a folder of this host. */
  | { readonly is: "folder"; readonly path: string };

/** Throws ImageError where there is nothing. */
export async function findSource(reference: Reference, pull: PullPolicy, context: SourceContext): Promise<Found> {
  switch (reference.is) {
    case "docker-daemon":
    case "docker":
    case "name":
      return findByName(reference.is, reference.name, pull, context);
    case "oci":
      return findFile(reference, OCI_INDEX, context, () =>
        openOci(new PlainFolder(reference.path), reference.image, context),
      );
    case "dir":
      return findFile(reference, DIR_MANIFEST, context, () => openSkopeo(reference.path, context));
    case "tar":
      if (isFolder(reference.path)) return { is: "folder", path: reference.path };
      return findFile(reference, "", context, () => Promise.resolve(rootFile(reference.path)));
    case "file":
      return isFolder(reference.path)
        ? findFolder(reference, context)
        : findFile(reference, "", context, () => openAny(reference.path, context));
    case "docker-archive":
      return findFile(reference, "", context, () =>
        withArchive(reference.path, context, (archive) => openDockerArchive(archive, reference.image, context)),
      );
    case "oci-archive":
      return findFile(reference, "", context, () =>
        withArchive(reference.path, context, (archive) => openOci(archive, reference.image, context)),
      );
  }
}

type FileReference = Reference & { readonly path: string };

/** A file that has not changed since it was last looked at leads to the same image; `file`: of a folder, the one with the digests. */
function findFile(
  reference: FileReference,
  file: string,
  context: SourceContext,
  open: () => Promise<ImageSource>,
): Found {
  const path = join(reference.path, file);
  // What is wrong with a folder without it, its reader says.
  const stamp = file !== "" && !existsSync(path) ? undefined : stampOf(path);
  const known = findName(context.cache, reference);
  return { is: "source", id: known !== undefined && known.stamp === stamp ? known.id : undefined, stamp, open };
}

async function withArchive(
  path: string,
  context: SourceContext,
  use: (archive: Archive) => Promise<ImageSource>,
): Promise<ImageSource> {
  const archive = await Archive.open(path, context);
  try {
    return await use(archive);
  } catch (error) {
    await archive.close();
    throw error;
  }
}

function findFolder(reference: FileReference, context: SourceContext): Found {
  const { path } = reference;
  const has = (name: string): boolean => statSync(join(path, name), { throwIfNoEntry: false })?.isFile() === true;
  if (has(OCI_LAYOUT)) {
    return findFile(reference, OCI_INDEX, context, () => openOci(new PlainFolder(path), "", context));
  }
  if (has(DIR_MANIFEST) && has(DIR_VERSION)) {
    return findFile(reference, DIR_MANIFEST, context, () => openSkopeo(path, context));
  }
  return { is: "folder", path };
}

/** An archive of an image, or else of a root file system. */
function openAny(path: string, context: SourceContext): Promise<ImageSource> {
  return withArchive(path, context, async (archive) => {
    // What `docker save` writes may have both.
    if (await archive.has("manifest.json")) return openDockerArchive(archive, "", context);
    if (await archive.has("oci-layout")) return openOci(archive, "", context);
    const { file } = archive;
    return { ...rootFile(file), close: () => archive.close() };
  });
}

/** An archive of a root file system: one layer. */
function rootFile(path: string): ImageSource {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  return {
    config: undefined,
    layers: [{ digest: undefined, size: size === 0 ? undefined : size, open: () => streamOf(path) }],
    close: () => Promise.resolve(),
  };
}

async function openOci(folder: PlainFolder | Archive, image: string, { limits }: SourceContext): Promise<ImageSource> {
  const { ociLayout } = await import("./sources/oci-layout.js");
  return ociLayout(folder, image, limits);
}

async function openSkopeo(path: string, { limits }: SourceContext): Promise<ImageSource> {
  const { skopeoFolder } = await import("./sources/oci-layout.js");
  return skopeoFolder(new PlainFolder(path), limits);
}

async function openDockerArchive(archive: Archive, image: string, { limits }: SourceContext): Promise<ImageSource> {
  const { dockerArchive } = await import("./sources/docker-archive.js");
  return dockerArchive(archive, image, limits);
}

/**
 * A name that the cache has is taken from there, but for `always`, and for an engine on this host, which is asked what the
 * name leads to now.
 */
async function findByName(
  is: "docker-daemon" | "docker" | "name",
  name: string,
  pull: PullPolicy,
  context: SourceContext,
): Promise<Found> {
  const reference = formatReference({ is, name });
  const known = findName(context.cache, { is, name });
  if (pull === "never") {
    if (known !== undefined)
      return { is: "source", id: known.id, stamp: known.stamp, open: () => notCached(reference) };
    return notCached(reference);
  }
  if (known !== undefined && pull === "missing" && is !== "docker-daemon" && context.cache.hasImage(known.id)) {
    return { is: "source", id: known.id, stamp: known.stamp, open: async () => (await ask(is, name, context)).open() };
  }
  const found = await ask(is, name, context);
  const id = known?.stamp === found.digest ? known.id : undefined;
  return { is: "source", id, stamp: found.digest, open: () => found.open() };
}

interface Named {
  /** Of what the name leads to now. */
  readonly digest: string;
  open(): Promise<ImageSource>;
}

async function ask(is: "docker-daemon" | "docker" | "name", name: string, context: SourceContext): Promise<Named> {
  if (is !== "docker") {
    const { engineSocket, findInEngine } = await import("./sources/engine.js");
    if (is === "docker-daemon" || engineSocket() !== undefined) {
      const found = await findInEngine(name, context);
      if (found !== undefined) return found;
      if (is === "docker-daemon") throw new ImageError(`docker-daemon:${name}: the engine does not have it`);
    }
  }
  const { findInRegistry } = await import("./sources/registry.js");
  return findInRegistry(needName(name), context);
}

function notCached(reference: string): never {
  throw new ImageError(`${reference}: not in the cache, and nobody may be asked for it`, {
    cure: "leave out --pull never, or name the image as it was named when it was brought here",
  });
}
