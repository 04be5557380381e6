// A layer laid over the tree of those below: image-spec v1.1, "Applying Changesets". What it takes away goes first: that
// concerns the layers below alone, wherever in the archive it stands.
import { ImageError } from "../errors.js";
import type { LayerEntry } from "./layer-entry.js";
import { MAX_NAME_BYTES, MAX_PATH_BYTES } from "./limits.js";
import { showBytes } from "./show-bytes.js";
import { newFolder, splitPath, type Inode, type Tree } from "./tree.js";
import type { Steps } from "./turns.js";

/** `source`: the index of the layer's contents. */
export function* applyLayer(tree: Tree, entries: readonly LayerEntry[], source: number): Steps {
  for (const entry of entries) {
    if (entry.is === "whiteout" || entry.is === "opaque") takeAway(tree, entry);
    yield;
  }
  for (const entry of entries) {
    if (entry.is !== "whiteout" && entry.is !== "opaque") put(tree, entry, source);
    yield;
  }
}

function names(path: string): string[] {
  return splitPath(path, MAX_NAME_BYTES, MAX_PATH_BYTES);
}

function takeAway(tree: Tree, { is, path }: LayerEntry): void {
  const steps = names(path);
  if (is === "opaque") {
    foundFolder(tree, steps)?.entries?.clear();
    return;
  }
  const name = steps.pop();
  if (name !== undefined) foundFolder(tree, steps)?.entries?.delete(name);
}

/** Undefined as well where something else stands: there is nothing to be taken away. */
function foundFolder(tree: Tree, steps: readonly string[]): Inode | undefined {
  try {
    return tree.folderAt(steps, false);
  } catch (error) {
    if (error instanceof ImageError) return undefined;
    throw error;
  }
}

function put(tree: Tree, entry: Exclude<LayerEntry, { is: "whiteout" | "opaque" }>, source: number): void {
  const steps = names(entry.path);
  const name = steps.pop();
  if (name === undefined) {
    // The root itself: only a folder can be it.
    if (entry.is !== "folder") throw new ImageError(`The root is a ${entry.is}, not a folder`);
    tree.root.attributes = entry.attributes;
    return;
  }
  const folder = tree.folderAt(steps, true);
  if (folder?.entries === undefined) return;
  if (entry.is === "link") {
    folder.entries.set(name, linked(tree, entry.path, entry.target));
    return;
  }
  const there = folder.entries.get(name);
  if (entry.is === "folder" && there?.kind === "folder") {
    there.attributes = entry.attributes;
    return;
  }
  tree.count();
  folder.entries.set(name, inodeOf(entry, source));
}

function inodeOf(entry: Exclude<LayerEntry, { is: "whiteout" | "opaque" | "link" }>, source: number): Inode {
  const { is, attributes, size, offset, target, major, minor } = entry;
  if (is === "folder") return newFolder(attributes);
  const content = is === "file" ? { size, source, offset } : undefined;
  return { kind: is, attributes, entries: undefined, content, target, major, minor };
}

/** What a hard link leads to: of this layer or of one below. */
function linked(tree: Tree, path: string, target: string): Inode {
  const steps = names(target);
  const name = steps.pop();
  const found = name === undefined ? tree.root : foundFolder(tree, steps)?.entries?.get(name);
  if (found === undefined) {
    throw new ImageError(`${showBytes(path)} is a hard link to ${showBytes(target)}, which is not there`);
  }
  if (found.kind === "folder") {
    throw new ImageError(`${showBytes(path)} is a hard link to ${showBytes(target)}, which is a folder`);
  }
  return found;
}
