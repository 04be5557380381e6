// Reads an erofs file system as Linux does, for what vmm/image/erofs writes; written from the kernel's documentation, not
// from the writer. It checks what the kernel relies on.
import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

export interface ReadInode {
  readonly nid: number;
  /** With its type. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly mtimeNs: number;
  readonly links: number;
  readonly size: number;
  readonly device: number;
  /** Of a file or symlink. */
  readonly content: Buffer;
  readonly xattrs: Readonly<Record<string, string>>;
}

const PREFIXES: Readonly<Record<number, string>> = {
  1: "user.",
  2: "system.posix_acl_access",
  3: "system.posix_acl_default",
  4: "trusted.",
  6: "security.",
};
/** `bytes` of a file that are read. */
const MAX_CONTENT = 64 * 1024 * 1024;

/** All of a disk of parts, or of each part no more than `most` bytes. */
export function readParts(manifestPath: string, most = Infinity): Buffer {
  const { parts } = JSON.parse(readFileSync(manifestPath, "utf8")) as { parts: { path: string; bytes: number }[] };
  return Buffer.concat(
    parts.map(({ path, bytes }) => {
      const file = join(dirname(manifestPath), path);
      assert.equal(statSync(file).size, bytes);
      if (bytes <= most) return readFileSync(file);
      const part = Buffer.alloc(most);
      const fd = openSync(file, "r");
      readSync(fd, part);
      closeSync(fd);
      return part;
    }),
  );
}

/** Every path (latin1, "" is the root) with its inode. `bytes`: of the whole disk, if this is only its start. */
export function readErofs(disk: Buffer, bytes = disk.length): Map<string, ReadInode> {
  assert.equal(disk.readUInt32LE(1024), 0xe0f5e1e2);
  assert.equal(disk.readUInt8(1024 + 12), 12);
  assert.equal(disk.readUInt32LE(1024 + 36), bytes / 4096);
  assert.equal(disk.readUInt32LE(1024 + 80), 0, "no feature that a kernel must know");
  assert.equal(disk.readUInt32LE(1024 + 4), checksum(disk.subarray(1024, 4096)));
  const all = new Map<string, ReadInode>();
  const rootNid = disk.readUInt16LE(1024 + 14);
  const seen = new Map<number, number>();
  const walk = (path: string, nid: number, parent: number, depth: number): void => {
    assert.ok(depth < 5000);
    const inode = readInode(disk, nid);
    all.set(path, inode);
    seen.set(nid, (seen.get(nid) ?? 0) + 1);
    if ((inode.mode & 0o170000) !== 0o040000) return;
    assert.equal(seen.get(nid), 1, "a folder has one place");
    const entries = readDirectory(inode.content);
    assert.equal(entries.find(({ name }) => name === ".")?.nid, nid);
    assert.equal(entries.find(({ name }) => name === "..")?.nid, parent);
    let subfolders = 0;
    for (const { name, nid: child, type } of entries) {
      if (name === "." || name === "..") continue;
      walk(path === "" ? name : `${path}/${name}`, child, nid, depth + 1);
      const { mode } = readInode(disk, child);
      assert.equal(type, { 0o1: 5, 0o2: 3, 0o4: 2, 0o6: 4, 0o10: 1, 0o12: 7, 0o14: 6 }[mode >> 12]);
      if (mode >> 12 === 0o4) subfolders++;
    }
    assert.equal(inode.links, 2 + subfolders);
  };
  walk("", rootNid, rootNid, 0);
  for (const [nid, count] of seen) {
    const { mode, links } = readInode(disk, nid);
    if (mode >> 12 !== 0o4) assert.equal(links, count);
  }
  assert.equal(Number(disk.readBigUInt64LE(1024 + 16)), seen.size);
  return all;
}

function readInode(disk: Buffer, nid: number): ReadInode {
  const at = nid * 32;
  const format = disk.readUInt16LE(at);
  assert.equal(format & 1, 1, "an extended inode");
  const layout = format >> 1;
  assert.ok(layout === 0 || layout === 2);
  const count = disk.readUInt16LE(at + 2);
  const xattrBytes = count === 0 ? 0 : 12 + 4 * (count - 1);
  const mode = disk.readUInt16LE(at + 4);
  const size = Number(disk.readBigUInt64LE(at + 8));
  const where = disk.readUInt32LE(at + 16);
  const type = mode >> 12;
  let content: Buffer = Buffer.alloc(0);
  if (type === 0o4 || type === 0o10 || type === 0o12) {
    const inline = layout === 2 ? size % 4096 : 0;
    const whole = disk.subarray(where * 4096, where * 4096 + Math.min(size - inline, MAX_CONTENT));
    const tailAt = at + 64 + xattrBytes;
    if (inline > 0) assert.ok((tailAt % 4096) + inline <= 4096, "what is inline lies in one block");
    content = Buffer.concat([whole, disk.subarray(tailAt, tailAt + inline)]);
    if (where * 4096 + size <= disk.length) assert.equal(content.length, Math.min(size, MAX_CONTENT));
  }
  return {
    nid,
    mode,
    size,
    uid: disk.readUInt32LE(at + 24),
    gid: disk.readUInt32LE(at + 28),
    mtime: Number(disk.readBigInt64LE(at + 32)),
    mtimeNs: disk.readUInt32LE(at + 40),
    links: disk.readUInt32LE(at + 44),
    device: type === 0o2 || type === 0o6 ? where : 0,
    content,
    xattrs: readXattrs(disk.subarray(at + 64, at + 64 + xattrBytes)),
  };
}

function readXattrs(bytes: Buffer): Record<string, string> {
  const found: Record<string, string> = {};
  if (bytes.length === 0) return found;
  assert.equal(bytes.readUInt8(4), 0, "no shared attributes");
  for (let at = 12; at < bytes.length;) {
    const nameLength = bytes.readUInt8(at);
    const prefix = PREFIXES[bytes.readUInt8(at + 1)];
    assert.ok(prefix !== undefined);
    const valueLength = bytes.readUInt16LE(at + 2);
    const name = prefix + bytes.toString("latin1", at + 4, at + 4 + nameLength);
    found[name] = bytes.toString("latin1", at + 4 + nameLength, at + 4 + nameLength + valueLength);
    at += Math.ceil((4 + nameLength + valueLength) / 4) * 4;
  }
  return found;
}

function readDirectory(content: Buffer): { name: string; nid: number; type: number }[] {
  const entries: { name: string; nid: number; type: number }[] = [];
  for (let start = 0; start < content.length; start += 4096) {
    const block = content.subarray(start, start + 4096);
    const first = block.readUInt16LE(8);
    assert.ok(first > 0 && first % 12 === 0 && first < block.length);
    const count = first / 12;
    for (let index = 0; index < count; index++) {
      const nameAt = block.readUInt16LE(12 * index + 8);
      const end = index + 1 < count ? block.readUInt16LE(12 * (index + 1) + 8) : block.length;
      const name = block.toString("latin1", nameAt, end).replace(/\0.*$/s, "");
      assert.ok(name.length > 0 && name.length <= 255 && !name.includes("/"), JSON.stringify(name));
      entries.push({ name, nid: Number(block.readBigUInt64LE(12 * index)), type: block.readUInt8(12 * index + 10) });
    }
  }
  for (let index = 1; index < entries.length; index++) {
    const before = Buffer.from(entries[index - 1]?.name ?? "", "latin1");
    const name = Buffer.from(entries[index]?.name ?? "", "latin1");
    assert.ok(before.compare(name) < 0, "names stand in the order of their bytes, each once");
  }
  return entries;
}

/** What a byte adds to CRC-32C: fuzzers come here often. */
const CRC = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

function checksum(superBlock: Buffer): number {
  const bytes = Buffer.from(superBlock);
  bytes.fill(0, 4, 8);
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ (CRC[(crc ^ byte) & 0xff] ?? 0);
  return crc >>> 0;
}
