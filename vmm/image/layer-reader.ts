// A layer's archive becomes a list of its entries and one file with the contents of all its files, each from the start of
// a block on. Nothing of it gets a path of this host.
import { ImageError } from "../errors.js";
import type { DataWriter } from "./data-writer.js";
import { BLOCK_SIZE } from "./erofs/format.js";
import { isKnownXattr } from "./erofs/xattrs.js";
import { encodeEntry, type LayerEntry } from "./layer-entry.js";
import { MAX_NAME_BYTES, MAX_PATH_BYTES } from "./limits.js";
import { showBytes } from "./show-bytes.js";
import { TarReader, type TarEntry, type TarSink } from "./tar/reader.js";
import { splitPath, type Attributes, type Xattr } from "./tree.js";
import type { ImageLimits } from "./types.js";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Others of this kind are marks that a union file system left for itself. */
const WHITEOUT_OF_WHITEOUTS = ".wh..wh.";
/** What overlayfs wrote for itself would tell the guest's own overlayfs things that are not so. */
const FOREIGN_XATTRS = ["trusted.overlay.", "user.overlay."];

export class LayerReader implements TarSink {
  readonly #tar = new TarReader(this);
  readonly #data: DataWriter;
  readonly #list: DataWriter;
  readonly #limits: ImageLimits;
  #entries = 0;
  #metadataBytes = 0;

  constructor(data: DataWriter, list: DataWriter, limits: ImageLimits) {
    this.#data = data;
    this.#list = list;
    this.#limits = limits;
  }

  get entries(): number {
    return this.#entries;
  }

  write(chunk: Buffer): void {
    this.#tar.write(chunk);
  }

  /** `needsEnd`: nobody has said what the archive's digest is. */
  end(needsEnd: boolean): void {
    this.#tar.end(needsEnd);
    this.#data.align(BLOCK_SIZE);
  }

  entry(tar: TarEntry): void {
    this.#data.align(BLOCK_SIZE);
    const path = splitPath(tar.name, MAX_NAME_BYTES, MAX_PATH_BYTES);
    const found = entryOf(tar, path, this.#data.position);
    if (this.#data.position + tar.size > this.#limits.layerBytes) {
      throw new ImageError(
        `A layer with more than ${String(this.#limits.layerBytes)} bytes of files, which is the limit`,
      );
    }
    if (found !== undefined) this.#add(found);
  }

  data(bytes: Buffer): void {
    this.#data.append(bytes);
  }

  hole(length: number): void {
    this.#data.skip(length);
  }

  #add(entry: LayerEntry): void {
    const { entries, metadataBytes } = this.#limits;
    if (++this.#entries > entries) {
      throw new ImageError(`A layer with more than ${String(entries)} files and folders, which is the limit`);
    }
    const line = Buffer.from(`${encodeEntry(entry)}\n`);
    this.#metadataBytes += line.length;
    if (this.#metadataBytes > metadataBytes) {
      throw new ImageError(
        `A layer whose names and attributes take more than ${String(metadataBytes)} bytes, which is the limit`,
      );
    }
    this.#list.append(line);
  }
}

function entryOf(tar: TarEntry, path: readonly string[], offset: number): LayerEntry | undefined {
  const joined = path.join("/");
  const name = path[path.length - 1] ?? "";
  if (name === OPAQUE) return { is: "opaque", path: path.slice(0, -1).join("/") };
  if (path.some((step) => step.startsWith(WHITEOUT_OF_WHITEOUTS))) return undefined;
  if (name.startsWith(WHITEOUT)) {
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === "" || hidden === "." || hidden === "..") {
      throw new ImageError(`${showBytes(joined)} would take away a folder from within`);
    }
    return { is: "whiteout", path: [...path.slice(0, -1), hidden].join("/") };
  }
  if (tar.type === "link") {
    const target = splitPath(tar.linkName, MAX_NAME_BYTES, MAX_PATH_BYTES);
    return { is: "link", path: joined, target: target.join("/") };
  }
  if (tar.type === "symlink") checkTarget(joined, tar.linkName);
  const { mode, uid, gid, mtime, mtimeNs, xattrs, size, major, minor } = tar;
  if (major > 0xfff || minor > 0xfffff || major < 0 || minor < 0) {
    throw new ImageError(`${showBytes(joined)} is the device ${String(major)}:${String(minor)}, which cannot be`);
  }
  const attributes: Attributes = { mode, uid, gid, mtime, mtimeNs, xattrs: keptXattrs(xattrs) };
  const target = tar.type === "symlink" ? tar.linkName : "";
  return { is: tar.type, path: joined, attributes, size, offset: size === 0 ? 0 : offset, target, major, minor };
}

function checkTarget(path: string, target: string): void {
  if (target === "" || target.includes("\0")) throw new ImageError(`${showBytes(path)} is a symbolic link to nothing`);
  if (target.length > MAX_PATH_BYTES) {
    throw new ImageError(
      `${showBytes(path)} is a symbolic link of ${String(target.length)} bytes, more than ${String(MAX_PATH_BYTES)}`,
    );
  }
}

export function keptXattrs(xattrs: readonly Xattr[]): readonly Xattr[] {
  return xattrs.filter(([name]) => isKnownXattr(name) && !FOREIGN_XATTRS.some((prefix) => name.startsWith(prefix)));
}
