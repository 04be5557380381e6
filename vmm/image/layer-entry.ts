// What a layer's list has about each of its entries, a line of JSON each, in the order of the archive. The last line says
// that the list is whole.
import { ImageError } from "../errors.js";
import type { Attributes, InodeKind, Xattr } from "./tree.js";

export type LayerEntry =
  | { readonly is: "whiteout"; readonly path: string }
  /** Nothing of the layers below is left in this folder. */
  | { readonly is: "opaque"; readonly path: string }
  | { readonly is: "link"; readonly path: string; readonly target: string }
  | {
      readonly is: InodeKind;
      readonly path: string;
      readonly attributes: Attributes;
      /** Of a file. */
      readonly size: number;
      readonly offset: number;
      /** Of a symlink. */
      readonly target: string;
      /** Of a device. */
      readonly major: number;
      readonly minor: number;
    };

const KINDS: readonly LayerEntry["is"][] = ["file", "folder", "symlink", "char", "block", "fifo", "socket"];

export function encodeEntry(entry: LayerEntry): string {
  switch (entry.is) {
    case "whiteout":
    case "opaque":
      return JSON.stringify([entry.is, entry.path]);
    case "link":
      return JSON.stringify([entry.is, entry.path, entry.target]);
    default: {
      const { mode, uid, gid, mtime, mtimeNs, xattrs } = entry.attributes;
      const own =
        entry.is === "file"
          ? [entry.size, entry.offset]
          : entry.is === "symlink"
            ? [entry.target]
            : entry.is === "char" || entry.is === "block"
              ? [entry.major, entry.minor]
              : [];
      return JSON.stringify([entry.is, entry.path, mode, uid, gid, mtime, mtimeNs, xattrs, ...own]);
    }
  }
}

export function decodeEntry(line: string): LayerEntry {
  // What this program wrote itself, into a folder that only its user may write to.
  const [is, path, ...rest] = JSON.parse(line) as [LayerEntry["is"], string, ...unknown[]];
  if (is === "whiteout" || is === "opaque") return { is, path };
  if (is === "link") return { is, path, target: String(rest[0]) };
  if (!KINDS.includes(is)) throw new ImageError("A layer's list in the cache is damaged");
  const [mode, uid, gid, mtime, mtimeNs, xattrs, first, second] = rest as [
    ...numbers: [number, number, number, number, number],
    xattrs: readonly Xattr[],
    first: number | string | undefined,
    second: number | undefined,
  ];
  const pair = { first: typeof first === "number" ? first : 0, second: second ?? 0 };
  return {
    is,
    path,
    attributes: { mode, uid, gid, mtime, mtimeNs, xattrs },
    size: is === "file" ? pair.first : 0,
    offset: is === "file" ? pair.second : 0,
    target: typeof first === "string" ? first : "",
    major: is === "file" ? 0 : pair.first,
    minor: is === "file" ? 0 : pair.second,
  };
}
