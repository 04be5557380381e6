// Payloads of the requests about files; docs/agent-protocol.md, "Files". Paths are checked here.
import { bytesOf, pathBytes, withNul, type GuestBytes } from "./guest-bytes.js";

export const FOLLOW = 1;
export const PARENTS = 2;
export const TREE = 2;
export const SYMBOLIC = 2;
export const NAMES = 2;
export const FORCE = 4;
export const CREATE = 4;
export const EXCLUSIVE = 8;
export const TRUNCATE = 16;
export const APPEND = 32;
export const OWNER = 64;
export const MODE = 128;
export const SET_MODE = 2;
export const SET_OWNER = 4;
export const SET_TIMES = 8;
export const SET_SIZE = 16;
export const TO_THE_END = 2n ** 64n - 1n;

function payloadOf(words: readonly number[], longs: readonly bigint[], ...strings: readonly Uint8Array[]): Buffer {
  const head = Buffer.alloc(words.length * 4 + longs.length * 8);
  let at = 0;
  for (const word of words) at = head.writeUInt32LE(word >>> 0, at);
  for (const long of longs) at = head.writeBigUInt64LE(BigInt.asUintN(64, long), at);
  return Buffer.concat([head, ...strings.map(withNul)]);
}

/** STAT, LIST, REMOVE, READLINK. */
export function encodePath(flags: number, path: GuestBytes): Buffer {
  return payloadOf([flags], [], pathBytes(path));
}

export function encodeRead(flags: number, offset: bigint, count: bigint, path: GuestBytes): Buffer {
  return payloadOf([flags], [offset, count], pathBytes(path));
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const NOBODY: Owner = { uid: 0, gid: 0 };

export function encodeWrite(
  flags: number,
  mode: number,
  owner: Owner | undefined,
  offset: bigint,
  path: GuestBytes,
): Buffer {
  const { uid, gid } = owner ?? NOBODY;
  return payloadOf([flags | (owner === undefined ? 0 : OWNER), mode, uid, gid], [offset], pathBytes(path));
}

export function encodeMkdir(flags: number, mode: number, owner: Owner | undefined, path: GuestBytes): Buffer {
  const { uid, gid } = owner ?? NOBODY;
  return payloadOf([flags | (owner === undefined ? 0 : OWNER), mode, uid, gid], [], pathBytes(path));
}

export function encodeRename(path: GuestBytes, newPath: GuestBytes): Buffer {
  return payloadOf([0], [], pathBytes(path), pathBytes(newPath));
}

/** A symbolic link's target is any text; the other's is a path. */
export function encodeLink(isSymbolic: boolean, target: GuestBytes, path: GuestBytes): Buffer {
  return payloadOf([isSymbolic ? SYMBOLIC : 0], [], isSymbolic ? bytesOf(target) : pathBytes(target), pathBytes(path));
}

export interface Attributes {
  readonly mode?: number | undefined;
  readonly owner?: Owner | undefined;
  /** Nanoseconds since 1970. */
  readonly times?: { readonly atime: bigint; readonly mtime: bigint } | undefined;
  /** The file is cut or filled with zeroes to this. */
  readonly size?: number | undefined;
}

/** Size and times share a field, so a request sets one of them. */
export function encodeSetAttributes(
  isFollowed: boolean,
  { mode, owner, times, size }: Attributes,
  path: GuestBytes,
): Buffer {
  const flags =
    (isFollowed ? FOLLOW : 0) |
    (mode === undefined ? 0 : SET_MODE) |
    (owner === undefined ? 0 : SET_OWNER) |
    (times === undefined ? 0 : SET_TIMES) |
    (size === undefined ? 0 : SET_SIZE);
  const { uid, gid } = owner ?? NOBODY;
  const mtime = size === undefined ? (times?.mtime ?? 0n) : BigInt(size);
  return payloadOf([flags, mode ?? 0, uid, gid], [times?.atime ?? 0n, mtime], pathBytes(path));
}

export function encodeMknod(mode: number, major: number, minor: number, path: GuestBytes): Buffer {
  return payloadOf([0, mode, major, minor], [], pathBytes(path));
}
