// A tree of files as a tar archive: "ustar" of POSIX.1-2017, pax headers for what that cannot hold, and GNU's long names where
// a name is not UTF-8: libraries for tar write names as UTF-8, and a guest's names are bytes.
import { isUtf8 } from "node:buffer";
import { Readable } from "node:stream";
import { SLASH } from "./guest-bytes.js";
import type { TreeEntry, TreeEntryType } from "./tree-entry.js";

const BLOCK = 512;
const NAME_BYTES = 100;
const TYPES: Readonly<Record<TreeEntryType, string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  "character-device": "3",
  "block-device": "4",
  directory: "5",
  fifo: "6",
};
/** What octal digits hold in fields of 8 and 12 bytes. */
const MAX_SHORT = 0o7_777_777;
const MAX_LONG = 0o77_777_777_777;
const ZEROES = Buffer.alloc(65_536);
const SECOND = 1_000_000_000n;
const DOT = Buffer.from(".");
const SEPARATOR = Buffer.from("/");

interface Header {
  readonly name: Buffer;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly target: Buffer;
  readonly major: number;
  readonly minor: number;
}

/** An archive of the entries; `root` is the root's name, and the beginning of all others unless it is ".". Fails where an entry does. */
export function packTree(entries: AsyncIterable<TreeEntry>, root: Buffer = DOT): Readable {
  return Readable.from(archiveOf(entries, root), { objectMode: false });
}

async function* archiveOf(entries: AsyncIterable<TreeEntry>, root: Buffer): AsyncGenerator<Buffer, void, undefined> {
  for await (const entry of entries) {
    yield headersOf(entry, nameOf(entry, root));
    if (entry.type !== "file") continue;
    let left = entry.size;
    for await (const chunk of entry.content ?? []) {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, Math.min(chunk.length, left));
      left -= bytes.length;
      if (bytes.length > 0) yield bytes;
      if (left === 0) break;
    }
    // A file that has become shorter meanwhile is filled up, as tar(1) does it.
    left += (BLOCK - (entry.size % BLOCK)) % BLOCK;
    for (; left > 0; left -= Math.min(left, ZEROES.length)) yield ZEROES.subarray(0, Math.min(left, ZEROES.length));
  }
  yield ZEROES.subarray(0, 2 * BLOCK);
}

function nameOf({ path, type }: TreeEntry, root: Buffer): Buffer {
  const parts = path.length === 0 ? [root] : root.equals(DOT) ? [path] : [root, SEPARATOR, path];
  if (type === "directory" && parts.at(-1)?.at(-1) !== SLASH) parts.push(SEPARATOR);
  return Buffer.concat(parts);
}

/** The entry's header, and before it those for what it cannot hold. */
function headersOf(entry: TreeEntry, name: Buffer): Buffer {
  const { uid, gid, target = Buffer.alloc(0) } = entry;
  const size = entry.type === "file" ? entry.size : 0;
  const seconds = Number(entry.mtimeNs / SECOND);
  const before: Buffer[] = [];
  const records: string[] = [];
  for (const [text, key, gnuType] of [
    [name, "path", "L"],
    [target, "linkpath", "K"],
  ] as const) {
    if (!isUtf8(text))
      before.push(block(gnu(gnuType, text.length + 1)), padded(Buffer.concat([text, ZEROES.subarray(0, 1)])));
    else if (text.length > NAME_BYTES) records.push(record(key, text.toString("utf8")));
  }
  if (uid > MAX_SHORT) records.push(record("uid", String(uid)));
  if (gid > MAX_SHORT) records.push(record("gid", String(gid)));
  if (size > MAX_LONG) records.push(record("size", String(size)));
  if (seconds < 0 || seconds > MAX_LONG || entry.mtimeNs % SECOND !== 0n) {
    records.push(record("mtime", timeText(entry.mtimeNs)));
  }
  if (records.length > 0) {
    const content = Buffer.from(records.join(""));
    before.unshift(block({ ...gnu("x", content.length), name: Buffer.from("PaxHeader") }), padded(content));
  }
  const header = block({
    name,
    type: TYPES[entry.type],
    mode: entry.mode & 0o7777,
    uid: fitting(uid, MAX_SHORT),
    gid: fitting(gid, MAX_SHORT),
    size: fitting(size, MAX_LONG),
    mtime: fitting(seconds, MAX_LONG),
    target,
    major: fitting(entry.major, MAX_SHORT),
    minor: fitting(entry.minor, MAX_SHORT),
  });
  return Buffer.concat([...before, header]);
}

/** Seconds with a fraction. */
function timeText(ns: bigint): string {
  const absolute = ns < 0n ? -ns : ns;
  const fraction = String(absolute % SECOND).padStart(9, "0");
  return `${ns < 0n ? "-" : ""}${String(absolute / SECOND)}.${fraction}`;
}

function fitting(value: number, limit: number): number {
  return value < 0 || value > limit ? 0 : value;
}

function gnu(type: string, size: number): Header {
  const name = Buffer.from("././@LongLink");
  return { name, type, mode: 0o644, uid: 0, gid: 0, size, mtime: 0, target: Buffer.alloc(0), major: 0, minor: 0 };
}

/** "LENGTH KEY=VALUE\n", the length its own digits included. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  let length = bytes + String(bytes).length;
  if (String(length).length > String(bytes).length) length = bytes + String(length).length;
  return `${String(length)}${rest}`;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, ZEROES.subarray(0, (BLOCK - (bytes.length % BLOCK)) % BLOCK)]);
}

/** One header. A name that is longer than its field stands in a header before, and is cut here. */
function block({ name, type, mode, uid, gid, size, mtime, target, major, minor }: Header): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number): void => {
    bytes.write(value.toString(8).padStart(digits, "0"), at, "latin1");
  };
  name.copy(bytes, 0, 0, NAME_BYTES);
  octal(mode, 100, 7);
  octal(uid, 108, 7);
  octal(gid, 116, 7);
  octal(size, 124, 11);
  octal(mtime, 136, 11);
  bytes.write(type, 156, "latin1");
  target.copy(bytes, 157, 0, NAME_BYTES);
  bytes.write("ustar\x0000", 257, "latin1");
  octal(major, 329, 7);
  octal(minor, 337, 7);
  bytes.fill(" ", 148, 156);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return bytes;
}
