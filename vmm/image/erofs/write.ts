// From a tree to the file system's own blocks: super block, inodes, directories. Files' contents are elsewhere on the
// same disk, behind these blocks, and only named here. Inodes have 64 bytes each: the short form has no times.
import { ImageError } from "../../errors.js";
import type { Inode, Tree } from "../tree.js";
import type { Steps } from "../turns.js";
import { directorySize, writeDirectory, type Dirent } from "./directory.js";
import {
  BLOCK_BITS,
  BLOCK_SIZE,
  EROFS_FEATURE_COMPAT_MTIME,
  EROFS_FEATURE_COMPAT_SB_CHKSUM,
  EROFS_SUPER_MAGIC_V1,
  EROFS_SUPER_OFFSET,
  EXTENDED_INODE_SIZE,
  FILE_TYPES,
  FORMAT_FLAT_INLINE,
  FORMAT_FLAT_PLAIN,
  ISLOT_SIZE,
  S_IFMT,
  XATTR_HEADER_SIZE,
  crc32c,
  encodeDevice,
} from "./format.js";
import { writeXattrs, xattrsSize } from "./xattrs.js";

/** Longest link target that Linux reads: PATH_MAX less its end. */
const MAX_TARGET = 4095;
const MAX_BLOCKS = 2 ** 32 - 1;

export interface ErofsOptions {
  readonly tree: Tree;
  /** `bytes` of each source of contents, in the order in which they follow the file system's blocks; multiples of 4096. */
  readonly sources: readonly number[];
  /** 16 bytes that name the file system. */
  readonly uuid: Uint8Array;
}

/** What is known of an inode while it is written. */
interface Placed {
  readonly inode: Inode;
  readonly parent: Placed | undefined;
  readonly number: number;
  links: number;
  /** Of a folder: its names in order, "." and ".." among them. */
  readonly names: readonly string[];
  /** `bytes` of what is written here: of a folder or symlink. */
  readonly ownSize: number;
  readonly xattrBytes: number;
  /** `bytes` from the start, a multiple of 32. */
  at: number;
  /** The last part of its own bytes lies behind it. */
  isInline: boolean;
  /** First block of its own bytes. */
  block: number;
}

/** The blocks of the file system, to be followed by the sources' bytes. Throws ImageError for what has no room in it. */
export function* writeErofs({ tree, sources, uuid }: ErofsOptions): Steps<Buffer> {
  const { placed, all } = yield* collect(tree.root);
  // The first block has the super block alone: the root must lie near the start, and no inode at 0.
  let at = BLOCK_SIZE;
  for (const item of all) at = placeInode(item, at);
  let block = Math.ceil(at / BLOCK_SIZE);
  for (const item of all) {
    const blocks = item.isInline ? Math.floor(item.ownSize / BLOCK_SIZE) : Math.ceil(item.ownSize / BLOCK_SIZE);
    if (blocks === 0) continue;
    item.block = block;
    block += blocks;
  }
  const starts: number[] = [];
  let end = block;
  for (const length of sources) {
    starts.push(end);
    end += length / BLOCK_SIZE;
  }
  if (end > MAX_BLOCKS) throw new ImageError(`The image has ${String(end)} blocks, more than ${String(MAX_BLOCKS)}`);
  const image = Buffer.alloc(block * BLOCK_SIZE);
  for (const item of all) {
    writeInode(image, item, starts);
    writeOwnBytes(image, item, placed);
    yield;
  }
  writeSuperBlock(image, { root: all[0]?.at ?? 0, inodes: all.length, blocks: end, uuid });
  return image;
}

/** All inodes, each once, the root first, folders before what is in them. */
function* collect(root: Inode): Steps<{ placed: Map<Inode, Placed>; all: Placed[] }> {
  const placed = new Map<Inode, Placed>();
  const all: Placed[] = [];
  const add = (inode: Inode, parent: Placed | undefined): void => {
    const known = placed.get(inode);
    if (known !== undefined) {
      known.links++;
      return;
    }
    const names = inode.entries === undefined ? [] : [".", "..", ...inode.entries.keys()].sort(byBytes);
    if (inode.target.length > MAX_TARGET) {
      throw new ImageError(`A symbolic link of ${String(inode.target.length)} bytes, more than ${String(MAX_TARGET)}`);
    }
    const item: Placed = {
      inode,
      parent,
      number: all.length + 1,
      links: inode.entries === undefined ? 1 : 2,
      names,
      ownSize: inode.entries === undefined ? inode.target.length : directorySize(names),
      xattrBytes: xattrsSize(inode.attributes.xattrs),
      at: 0,
      isInline: false,
      block: 0,
    };
    placed.set(inode, item);
    all.push(item);
    if (inode.entries !== undefined && parent !== undefined) parent.links++;
  };
  add(root, undefined);
  // The list grows while it is walked.
  for (const item of all) {
    for (const inode of item.inode.entries?.values() ?? []) add(inode, item);
    yield;
  }
  return { placed, all };
}

function byBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Returns where the next one may lie. What is inline must not cross into another block. */
function placeInode(item: Placed, at: number): number {
  const size = EXTENDED_INODE_SIZE + item.xattrBytes;
  const tail = item.ownSize % BLOCK_SIZE;
  item.at = at;
  if (tail > 0) {
    // Where its attributes end in a block decides, and a fresh block is tried as well.
    for (const start of [at, Math.ceil(at / BLOCK_SIZE) * BLOCK_SIZE]) {
      if (((start + size) % BLOCK_SIZE) + tail > BLOCK_SIZE) continue;
      item.at = start;
      item.isInline = true;
      break;
    }
  }
  return Math.ceil((item.at + size + (item.isInline ? tail : 0)) / ISLOT_SIZE) * ISLOT_SIZE;
}

function writeInode(image: Buffer, item: Placed, starts: readonly number[]): void {
  const { inode, at, xattrBytes } = item;
  const { attributes, content, kind } = inode;
  image.writeUInt16LE(item.isInline ? FORMAT_FLAT_INLINE : FORMAT_FLAT_PLAIN, at);
  image.writeUInt16LE(xattrBytes === 0 ? 0 : (xattrBytes - XATTR_HEADER_SIZE) / 4 + 1, at + 2);
  image.writeUInt16LE((S_IFMT[kind] ?? 0) | (attributes.mode & 0o7777), at + 4);
  image.writeBigUInt64LE(BigInt(content?.size ?? item.ownSize), at + 8);
  let where = item.block;
  if (kind === "char" || kind === "block") where = encodeDevice(inode.major, inode.minor);
  else if (content !== undefined && content.size > 0) where = blockOf(content.source, content.offset, starts);
  image.writeUInt32LE(where, at + 16);
  image.writeUInt32LE(item.number, at + 20);
  image.writeUInt32LE(attributes.uid, at + 24);
  image.writeUInt32LE(attributes.gid, at + 28);
  image.writeBigInt64LE(BigInt(attributes.mtime), at + 32);
  image.writeUInt32LE(attributes.mtimeNs, at + 40);
  image.writeUInt32LE(item.links, at + 44);
  if (xattrBytes > 0) writeXattrs(image, at + EXTENDED_INODE_SIZE, attributes.xattrs);
}

function blockOf(source: number, offset: number, starts: readonly number[]): number {
  const start = starts[source];
  if (start === undefined || offset % BLOCK_SIZE !== 0)
    throw new RangeError(`No block at ${String(source)}:${String(offset)}`);
  return start + offset / BLOCK_SIZE;
}

function writeOwnBytes(image: Buffer, item: Placed, placed: ReadonlyMap<Inode, Placed>): void {
  if (item.ownSize === 0) return;
  const bytes = Buffer.alloc(item.ownSize);
  if (item.inode.entries === undefined) bytes.write(item.inode.target, "latin1");
  else writeDirectory(bytes, direntsOf(item, placed));
  const inBlocks = item.isInline ? item.ownSize - (item.ownSize % BLOCK_SIZE) : item.ownSize;
  bytes.copy(image, item.block * BLOCK_SIZE, 0, inBlocks);
  if (item.isInline) bytes.copy(image, item.at + EXTENDED_INODE_SIZE + item.xattrBytes, inBlocks);
}

function direntsOf(item: Placed, placed: ReadonlyMap<Inode, Placed>): Dirent[] {
  return item.names.map((name) => {
    const to =
      name === "." ? item : name === ".." ? (item.parent ?? item) : placedOf(item.inode.entries?.get(name), placed);
    return { name, nid: to.at / ISLOT_SIZE, type: FILE_TYPES[to.inode.kind] ?? 0 };
  });
}

function placedOf(inode: Inode | undefined, placed: ReadonlyMap<Inode, Placed>): Placed {
  const found = inode === undefined ? undefined : placed.get(inode);
  if (found === undefined) throw new Error("An inode that was not collected");
  return found;
}

function writeSuperBlock(
  image: Buffer,
  { root, inodes, blocks, uuid }: { root: number; inodes: number; blocks: number; uuid: Uint8Array },
): void {
  const at = EROFS_SUPER_OFFSET;
  image.writeUInt32LE(EROFS_SUPER_MAGIC_V1, at);
  image.writeUInt32LE(EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME, at + 8);
  image.writeUInt8(BLOCK_BITS, at + 12);
  image.writeUInt16LE(root / ISLOT_SIZE, at + 14);
  image.writeBigUInt64LE(BigInt(inodes), at + 16);
  image.writeUInt32LE(blocks, at + 36);
  image.set(uuid.subarray(0, 16), at + 48);
  image.writeUInt32LE(crc32c(image.subarray(at, BLOCK_SIZE)), at + 4);
}
