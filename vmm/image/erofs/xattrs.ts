// Extended attributes of an inode: they lie behind it.
import { ImageError } from "../../errors.js";
import { showBytes } from "../show-bytes.js";
import type { Xattr } from "../tree.js";
import { MAX_XATTR_BYTES, XATTR_ENTRY_SIZE, XATTR_HEADER_SIZE, XATTR_PREFIXES } from "./format.js";

const MAX_NAME = 255;
const MAX_VALUE = 0xffff;

interface Placed {
  readonly index: number;
  /** What is left of the name without its prefix. */
  readonly name: string;
  readonly value: string;
}

/** Whether the file system, and Linux, has a place for attributes of this name. */
export function isKnownXattr(name: string): boolean {
  return place([name, ""]) !== undefined;
}

/** `bytes` of all attributes behind an inode, 0 without any. Throws ImageError if they have no room. */
export function xattrsSize(xattrs: readonly Xattr[]): number {
  let size = XATTR_HEADER_SIZE;
  let count = 0;
  for (const xattr of xattrs) {
    const placed = place(xattr);
    if (placed === undefined) continue;
    if (placed.name.length > MAX_NAME || placed.value.length > MAX_VALUE) {
      throw new ImageError(
        `Attribute ${showBytes(xattr[0])} has ${String(placed.value.length)} bytes; names have ${String(MAX_NAME)} at most, values ${String(MAX_VALUE)}`,
      );
    }
    size += entrySize(placed);
    count++;
  }
  if (size > MAX_XATTR_BYTES) {
    throw new ImageError(`The attributes of a file have ${String(size)} bytes, more than ${String(MAX_XATTR_BYTES)}`);
  }
  return count === 0 ? 0 : size;
}

export function writeXattrs(target: Buffer, start: number, xattrs: readonly Xattr[]): void {
  let at = start + XATTR_HEADER_SIZE;
  for (const xattr of xattrs) {
    const placed = place(xattr);
    if (placed === undefined) continue;
    target.writeUInt8(placed.name.length, at);
    target.writeUInt8(placed.index, at + 1);
    target.writeUInt16LE(placed.value.length, at + 2);
    target.write(placed.name + placed.value, at + XATTR_ENTRY_SIZE, "latin1");
    at += entrySize(placed);
  }
}

function entrySize({ name, value }: Placed): number {
  return Math.ceil((XATTR_ENTRY_SIZE + name.length + value.length) / 4) * 4;
}

function place([name, value]: Xattr): Placed | undefined {
  for (const [prefix, index] of XATTR_PREFIXES) {
    const isWhole = !prefix.endsWith(".");
    if (isWhole ? name === prefix : name.startsWith(prefix) && name.length > prefix.length) {
      return { index, name: name.slice(prefix.length), value };
    }
  }
  return undefined;
}
