// What a guest has looked up and opened in a shared folder, so that another server can be brought to know the same: from what
// virtiofsd says of its work. Its numbers for nodes and handles follow from the order of the requests alone, and the answers
// tell whether they did. Linux: include/uapi/linux/fuse.h.
import { lstatSync, type BigIntStats } from "node:fs";
import { join } from "node:path";
import { FUSE_IN_HEADER_BYTES, FUSE_OUT_HEADER_BYTES } from "../../../devices/virtio/fs/constants.js";

const FUSE_LOOKUP = 1;
const FUSE_FORGET = 2;
const FUSE_OPEN = 14;
const FUSE_RELEASE = 18;
/** By the names that virtiofsd has for them: they leave nothing with the server. */
const STATELESS = new Set(
  "INIT GETATTR READLINK READ FLUSH STATFS GETXATTR LISTXATTR ACCESS INTERRUPT FORGET BATCH_FORGET".split(" "),
);
const ROOT = 1;
/** Of one guest that has only begun: more are another's matter. */
const MAX_ENTRIES = 4096;
// Places in struct fuse_entry_out, behind the answer's header.
const ENTRY_ATTR = FUSE_OUT_HEADER_BYTES + 40;

/** A file that is another one has another text. */
export type Fingerprint = string;

export type JournalEntry =
  | {
      readonly op: "lookup";
      readonly parent: number;
      readonly name: string;
      node: number;
      error: number;
      file?: Fingerprint;
    }
  | { readonly op: "forget"; readonly node: number; readonly count: number }
  | { readonly op: "open"; readonly node: number; readonly flags: number; handle: number }
  | { readonly op: "release"; readonly node: number; readonly handle: number };

/** Undefined for requests that nobody can repeat. `folder`: the shared one. `log`: all that virtiofsd has said, in Latin-1. */
export function journalOf(log: string, folder: string): JournalEntry[] | undefined {
  const entries = readLog(log);
  return entries !== undefined && entries.length <= MAX_ENTRIES ? withFingerprints(entries, folder) : undefined;
}

/** What one thread of the server is about to do. */
interface Pending {
  readonly opcode: string;
  readonly node: number;
  readonly bodyBytes: number;
  entry?: JournalEntry;
}

function readLog(log: string): JournalEntry[] | undefined {
  const entries: JournalEntry[] = [];
  const pending = new Map<string, Pending>();
  const handles = new Handles();
  for (const line of log.split("\n")) {
    const [, thread = "", text = ""] = /^\[[^\]]*\] \[ID: (\d+)\] (.*)$/.exec(line) ?? [];
    const request = /^unique: \d+, opcode: (\w+) \(\d+\), nodeid: (\d+), insize: (\d+), pid: \d+$/.exec(text);
    if (request !== null) {
      const [, opcode = "", node, length] = request;
      pending.set(thread, { opcode, node: Number(node), bodyBytes: Number(length) - FUSE_IN_HEADER_BYTES });
      if (!STATELESS.has(opcode) && !["LOOKUP", "OPEN", "RELEASE"].includes(opcode)) return undefined;
      continue;
    }
    const now = pending.get(thread);
    if (now === undefined) continue;
    const forgotten = /^ {2}forget (\d+) \d+ -(\d+)$/.exec(text);
    if (forgotten !== null) entries.push({ op: "forget", node: Number(forgotten[1]), count: Number(forgotten[2]) });
    const looked = /^lo_lookup\(parent=(\d+), name=(.*)\)$/.exec(text);
    if (looked !== null && now.opcode === "LOOKUP" && now.entry === undefined) {
      const [, parent, name = ""] = looked;
      // A line's end in it, which nobody could tell from the log's.
      if (name.length + 1 !== now.bodyBytes) return undefined;
      now.entry = { op: "lookup", parent: Number(parent), name, node: 0, error: 0 };
    }
    const found = /^ {2}\d+\/.* -> (\d+)$/.exec(text);
    if (found !== null && now.entry?.op === "lookup") now.entry.node = Number(found[1]);
    const opened = /^lo_open\(ino=(\d+), flags=(\d+), /.exec(text);
    if (opened !== null && now.opcode === "OPEN") {
      now.entry = { op: "open", node: Number(opened[1]), flags: Number(opened[2]), handle: 0 };
    }
    const answered = /^ {3}unique: \d+, (success|error: -(\d+))/.exec(text);
    if (answered === null) continue;
    pending.delete(thread);
    const error = Number(answered[2] ?? 0);
    if (now.opcode === "RELEASE") {
      const handle = handles.release(now.node);
      if (handle === undefined || error !== 0) return undefined;
      entries.push({ op: "release", node: now.node, handle });
    } else if (now.opcode === "LOOKUP") {
      if (now.entry?.op !== "lookup" || (error === 0) !== now.entry.node > 0) return undefined;
      now.entry.error = error;
      entries.push(now.entry);
    } else if (now.opcode === "OPEN" && error === 0) {
      if (now.entry?.op !== "open") return undefined;
      now.entry.handle = handles.open(now.entry.node);
      entries.push(now.entry);
    }
  }
  return entries;
}

/** As virtiofsd gives numbers to what is open: the one that became free last comes first. */
class Handles {
  readonly #free: number[] = [];
  readonly #open = new Map<number, number[]>();
  #next = 0;

  open(node: number): number {
    const handle = this.#free.pop() ?? this.#next++;
    this.#open.set(node, [...(this.#open.get(node) ?? []), handle]);
    return handle;
  }

  /** Undefined where it could be any of several. */
  release(node: number): number | undefined {
    const [handle, ...more] = this.#open.get(node) ?? [];
    if (handle === undefined || more.length > 0) return undefined;
    this.#open.delete(node);
    this.#free.push(handle);
    return handle;
  }
}

function withFingerprints(entries: JournalEntry[], folder: string): JournalEntry[] | undefined {
  const paths = new Map([[ROOT, folder]]);
  const opened = new Set(entries.map((entry) => (entry.op === "open" ? entry.node : 0)));
  for (const entry of entries) {
    if (entry.op !== "lookup" || entry.error !== 0) continue;
    const parent = paths.get(entry.parent);
    if (parent === undefined) return undefined;
    const path = join(parent, Buffer.from(entry.name, "latin1").toString());
    paths.set(entry.node, path);
    const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    // Whatever else it is, the guest asks again; but it has the bytes of these.
    if (!stat.isSymbolicLink() && !opened.has(entry.node)) continue;
    entry.file = fingerprint(stat);
  }
  return entries;
}

/** The request that is to be answered as `entry` says. Its number is in no use. */
export function encodeEntry(entry: JournalEntry): Uint8Array {
  switch (entry.op) {
    case "lookup":
      return request(FUSE_LOOKUP, entry.parent, Buffer.from(`${entry.name}\0`, "latin1"));
    case "forget":
      return request(FUSE_FORGET, entry.node, Buffer.from(BigUint64Array.of(BigInt(entry.count)).buffer));
    case "open":
      return request(FUSE_OPEN, entry.node, Buffer.from(Uint32Array.of(entry.flags, 0).buffer));
    case "release": {
      const handle = BigUint64Array.of(BigInt(entry.handle), 0n, 0n);
      return request(FUSE_RELEASE, entry.node, Buffer.from(handle.buffer));
    }
  }
}

function request(opcode: number, node: number, body: Uint8Array): Uint8Array {
  const header = Buffer.alloc(FUSE_IN_HEADER_BYTES);
  header.writeUInt32LE(header.length + body.length, 0);
  header.writeUInt32LE(opcode, 4);
  header.writeBigUInt64LE(BigInt(opcode), 8);
  header.writeBigUInt64LE(BigInt(node), 16);
  return Buffer.concat([header, body]);
}

/** Whether the server has answered what the one before it had. Undefined: the session's beginning. */
export function isAsBefore(entry: JournalEntry | undefined, answer: Uint8Array): boolean {
  const view = Buffer.from(answer.buffer, answer.byteOffset, answer.length);
  const error = -view.readInt32LE(4);
  switch (entry?.op) {
    case undefined:
      return view.readUInt32LE(0) > FUSE_OUT_HEADER_BYTES && error === 0;
    case "forget":
      return true;
    case "release":
      return error === 0;
    case "open":
      return error === 0 && view.readBigUInt64LE(FUSE_OUT_HEADER_BYTES) === BigInt(entry.handle);
    case "lookup":
      if (error !== 0 || entry.error !== 0) return error === entry.error;
      if (view.readBigUInt64LE(FUSE_OUT_HEADER_BYTES) !== BigInt(entry.node)) return false;
      return entry.file === undefined ? true : entry.file === fingerprintOf(view.subarray(ENTRY_ATTR));
  }
}

type Identifying = "ino" | "size" | "mtimeNs" | "ctimeNs" | "mode" | "uid" | "gid";

function fingerprint({ ino, size, mtimeNs, ctimeNs, mode, uid, gid }: Pick<BigIntStats, Identifying>): Fingerprint {
  return [ino, size, mtimeNs, ctimeNs, mode, uid, gid].join(" ");
}

/** struct fuse_attr */
function fingerprintOf(attr: Buffer): Fingerprint {
  const number = (at: number): bigint => BigInt(attr.readUInt32LE(at));
  const time = (second: number, nanosecond: number): bigint =>
    attr.readBigInt64LE(second) * 1_000_000_000n + number(nanosecond);
  return fingerprint({
    ino: attr.readBigUInt64LE(0),
    size: attr.readBigUInt64LE(8),
    mtimeNs: time(32, 52),
    ctimeNs: time(40, 56),
    mode: number(60),
    uid: number(68),
    gid: number(72),
  });
}

/** As it is kept. */
export function encodeJournal(entries: readonly JournalEntry[]): Uint8Array {
  return Buffer.from(JSON.stringify(entries));
}

/** Undefined for what is none. */
export function decodeJournal(bytes: Uint8Array): JournalEntry[] | undefined {
  if (bytes.length === 0) return [];
  try {
    return JSON.parse(Buffer.from(bytes).toString()) as JournalEntry[];
  } catch {
    return undefined;
  }
}
