// All that lies below a folder of this host, in a steady order. File systems that have no files of their own, such as
// /proc, are left empty.
import { lstatSync, readdirSync, readlinkSync, statfsSync, type BigIntStats } from "node:fs";
import { ImageError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { showBytes } from "./show-bytes.js";
import type { InodeKind } from "./tree.js";
import type { Turns } from "./turns.js";
import type { ImageLimits } from "./types.js";

export interface FoundFile {
  /** From the folder on, latin1; "" is the folder itself. */
  readonly path: string;
  readonly kind: InodeKind;
  /** What was found before and is the same file. */
  readonly target: string | undefined;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly mtimeNs: number;
  readonly size: number;
  readonly inode: number;
  readonly linkTarget: string;
  readonly major: number;
  readonly minor: number;
  /** Changes whenever the file may have. */
  readonly state: string;
  /** Its path on this host. */
  bytesOf(root: string): Buffer;
}

/** linux/magic.h: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, pstore, configfs, mqueue. */
const WITHOUT_FILES: readonly number[] = [
  0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1, 0x64626720, 0x74726163, 0x73636673, 0xcafe4a11, 0x6165676c,
  0x62656570, 0x19800202,
];

/** Throws ImageError. */
export async function walkFolder(root: string, limits: ImageLimits, turns: Turns): Promise<FoundFile[]> {
  const files: FoundFile[] = [];
  const known = new Map<string, string>();
  const waiting: { readonly path: string; readonly device: bigint | undefined }[] = [{ path: "", device: undefined }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { path, device } = next;
    const bytes = bytesOf(root, path);
    const stat = attempt(root, path, () => lstatSync(bytes, { bigint: true }));
    if (path === "" && !stat.isDirectory()) throw new ImageError(`${root}: not a folder`);
    const file = foundFile(root, path, stat, known);
    files.push(file);
    if (files.length > limits.entries) {
      throw new ImageError(`${root}: more than ${String(limits.entries)} files and folders, which is the limit`);
    }
    if (turns.isOver) await turns.next();
    if (file.kind !== "folder") continue;
    const isOther = device !== undefined && device !== stat.dev;
    if (isOther && WITHOUT_FILES.includes(attempt(root, path, () => statfsSync(bytes)).type)) continue;
    const names = attempt(root, path, () => readdirSync(bytes, { encoding: "latin1" }))
      .sort()
      .reverse();
    for (const name of names) waiting.push({ path: path === "" ? name : `${path}/${name}`, device: stat.dev });
  }
  return files;
}

function foundFile(root: string, path: string, stat: BigIntStats, known: Map<string, string>): FoundFile {
  const kind = kindOf(stat);
  const place = `${String(stat.dev)}:${String(stat.ino)}`;
  let target: string | undefined;
  if (kind !== "folder" && stat.nlink > 1n) {
    target = known.get(place);
    if (target === undefined) known.set(place, path);
  }
  const ns = ((stat.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const isDevice = kind === "char" || kind === "block";
  const bytes = bytesOf(root, path);
  return {
    path,
    kind,
    target,
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtime: Number((stat.mtimeNs - ns) / 1_000_000_000n),
    mtimeNs: Number(ns),
    size: Number(stat.size),
    inode: Number(stat.ino),
    linkTarget: kind === "symlink" ? attempt(root, path, () => readlinkSync(bytes, { encoding: "latin1" })) : "",
    // As <sys/sysmacros.h>.
    major: isDevice ? Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & ~0xfffn)) : 0,
    minor: isDevice ? Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & ~0xffn)) : 0,
    state: [place, stat.mode, stat.nlink, stat.uid, stat.gid, stat.rdev, stat.size, stat.mtimeNs, stat.ctimeNs].join(
      " ",
    ),
    bytesOf: (top) => bytesOf(top, path),
  };
}

function kindOf(stat: BigIntStats): InodeKind {
  if (stat.isDirectory()) return "folder";
  if (stat.isSymbolicLink()) return "symlink";
  if (stat.isCharacterDevice()) return "char";
  if (stat.isBlockDevice()) return "block";
  if (stat.isFIFO()) return "fifo";
  return stat.isSocket() ? "socket" : "file";
}

function bytesOf(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(root), Buffer.from(path === "" ? "" : `/${path}`, "latin1")]);
}

function attempt<Result>(root: string, path: string, call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    const name = path === "" ? root : `${root}: ${showBytes(path)}`;
    throw new ImageError(`${name}: ${code === "ENOENT" ? "gone while it was read" : errnoText(code)}`, {
      cause: error,
      cure: code === "EACCES" || code === "EPERM" ? "run vmlet as a user who may read all of the folder" : undefined,
    });
  }
}
