// A raw image or a block device of the host, opened and checked before the guest exists.
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readSync,
  statSync,
  type BigIntStats,
  type Stats,
} from "node:fs";
import type { DiskFormat } from "../../config/disks.js";
import { DiskError, HostError } from "../../errors.js";
import { cureFor } from "../../sys/cures.js";
import { freshPath, shellWord } from "../../host/shell-word.js";
import { closeDescriptor, duplicate } from "../../sys/descriptors.js";
import { IO, IOR } from "../../sys/ioctl.js";
import { ioctlStruct } from "../../sys/ioctl-calls.js";
import { checkIsRaw } from "./disk-format.js";
import { lockDisk } from "./disk-lock.js";
import { MAX_MANIFEST_BYTES, readPartsManifest, type DiskPart } from "./parts-manifest.js";

/** linux/fs.h: size of a block device in bytes, and whether it may be written to. */
const BLKGETSIZE64 = IOR(0x12, 114, 8);
const BLKROGET = IO(0x12, 94);

/** What fills a disk of parts up to a whole block. */
const ZEROES = "/dev/zero";

const OPEN_PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "on a read-only file system",
  EISDIR: "a directory, not a disk image",
  ENOTDIR: "a part of the path is not a directory",
  ELOOP: "a loop of symbolic links",
  ENAMETOOLONG: "a path that is too long",
  ETXTBSY: "a program that is running",
  ENXIO: "a device that is not there",
  ENOMEDIUM: "a drive without a medium",
  EBUSY: "in use by this host: mounted, or part of another device",
};
/** Errors of open(2) for a file that may not be written. */
const ONLY_WRITING = ["EACCES", "EPERM", "EROFS", "ETXTBSY", "EBUSY"];

export interface DiskFileOptions {
  readonly path: string;
  readonly isReadonly: boolean;
  /** "raw": whatever it looks like, it is a raw disk. */
  readonly format?: DiskFormat;
  /** `bytes` of the guest's logical block. */
  readonly blockSize: 512 | 4096;
  /** False: no locks; others may write what this one reads, and read what it writes. */
  readonly isLocked?: boolean;
}

/** An open disk; the caller closes it. */
export interface DiskFile {
  readonly path: string;
  readonly fd: number;
  /** `bytes` */
  readonly size: number;
  readonly isReadonly: boolean;
  /** Of a disk of parts: they follow one another. `fd` is that of the list then. */
  readonly parts?: readonly DiskFile[];
  /** Zeroes behind the last part, up to a whole block. */
  readonly padding?: DiskFile | undefined;
}

export function closeDiskFile({ fd, parts = [], padding }: DiskFile): void {
  closeSync(fd);
  for (const part of parts) closeDiskFile(part);
  if (padding !== undefined) closeDiskFile(padding);
}

/** Throws DiskError for what cannot be a disk of the guest. */
export function openDiskFile(options: DiskFileOptions): DiskFile {
  const { path, isReadonly, isLocked = true } = options;
  if (options.format === "parts") return openParts(options);
  // O_EXCL: a block device that is mounted says so; the kernel wants it only for those.
  const exclusive = isLocked && !isReadonly && isBlockDevice(path) ? constants.O_EXCL : 0;
  // O_NONBLOCK: open(2) does not wait for the other end of a FIFO, which is refused below.
  const fd = open(path, isReadonly, constants.O_NONBLOCK | exclusive);
  try {
    const file = examined(fd, options);
    if (isLocked) lockDisk(path, fd, isReadonly);
    return file;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * A disk for the place of one that is open, and stays so. The same file as before, which may have got another size, keeps
 * its locks. Throws as openDiskFile.
 */
export function reopenDiskFile(old: DiskFile, options: DiskFileOptions): DiskFile {
  if (options.format === "parts" || !isSameFile(old.fd, options.path)) return openDiskFile(options);
  const fd = duplicate(old.fd);
  try {
    return examined(fd, options);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function isSameFile(fd: number, path: string): boolean {
  let now: BigIntStats;
  try {
    now = statSync(path, { bigint: true });
  } catch {
    // What is wrong with it is said when it is opened.
    return false;
  }
  const before = fstatSync(fd, { bigint: true });
  if (now.isBlockDevice() && before.isBlockDevice()) return now.rdev === before.rdev;
  return now.dev === before.dev && now.ino === before.ino;
}

/** Whether an open file can be the disk, and as what. */
function examined(fd: number, { path, isReadonly, format, blockSize }: DiskFileOptions): DiskFile {
  const stat = fstatSync(fd);
  const size = sizeOf(path, fd, stat);
  if (!isReadonly && stat.isBlockDevice()) checkIsWritable(path, fd);
  // Any file, even an empty one: what is behind the last whole block is not there for the guest.
  if (format === "raw") return { path, fd, size: size - (size % blockSize), isReadonly };
  if (size === 0) {
    throw new DiskError(`${path}: empty; a disk has at least one block of ${String(blockSize)} bytes`, {
      cure: stat.isFile() ? `give it a size: truncate -s 1G ${shellWord(path)}` : undefined,
    });
  }
  checkIsRaw(path, { size, read: (at, length) => readAt(fd, at, length) }, isReadonly);
  if (size % blockSize !== 0) throw notWholeBlocks(path, size, blockSize);
  return { path, fd, size, isReadonly };
}

/** The list, then all that it names: all are open, or none. */
function openParts({ path, blockSize, isLocked = true }: DiskFileOptions): DiskFile {
  const fd = open(path, true, constants.O_NONBLOCK);
  const parts: DiskFile[] = [];
  try {
    for (const part of partsOf(path, fd)) parts.push(openPart(path, part, isLocked));
    const length = parts.reduce((sum, part) => sum + part.size, 0);
    const size = Math.ceil(length / blockSize) * blockSize;
    const padding =
      size === length ? undefined : { path: ZEROES, fd: open(ZEROES, true, 0), size: size - length, isReadonly: true };
    return { path, fd, size, isReadonly: true, parts, padding };
  } catch (error) {
    closeDiskFile({ path, fd, size: 0, isReadonly: true, parts });
    throw error;
  }
}

/** What the list of a disk's parts names. Throws DiskError. */
export function readPartsList(path: string): DiskPart[] {
  const fd = open(path, true, constants.O_NONBLOCK);
  try {
    return partsOf(path, fd);
  } finally {
    closeSync(fd);
  }
}

function partsOf(path: string, fd: number): DiskPart[] {
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw new DiskError(`${path}: not a file, which the list of a disk's parts has to be`);
  return readPartsManifest(path, stat.size, readAt(fd, 0, MAX_MANIFEST_BYTES + 1));
}

function openPart(list: string, { path, bytes }: DiskPart, isLocked: boolean): DiskFile {
  try {
    const fd = open(path, true, constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      const size = sizeOf(path, fd, stat);
      if (size !== bytes) throw new DiskError(`${path}: ${String(size)} bytes, not the ${String(bytes)} of the list`);
      if (isLocked) lockDisk(path, fd, true);
      return { path, fd, size, isReadonly: true };
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    throw new DiskError(`${list}: part ${error.message}`, { cause: error.cause, cure: error.cure });
  }
}

function isBlockDevice(path: string): boolean {
  try {
    return statSync(path).isBlockDevice();
  } catch {
    // What is wrong with it is said when it is opened.
    return false;
  }
}

function open(path: string, isReadonly: boolean, flags: number): number {
  try {
    return openSync(path, (isReadonly ? constants.O_RDONLY : constants.O_RDWR) | flags);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    // The file may be as good as any.
    const limit = cureFor("open", code);
    if (limit !== undefined) throw new HostError(`${path}: cannot be opened (${code})`, { cause: error, cure: limit });
    const problem = OPEN_PROBLEMS[code] ?? `cannot be opened (${code})`;
    throw new DiskError(`${path}: ${problem}`, { cause: error, cure: openCure(path, isReadonly, code) });
  }
}

function openCure(path: string, isReadonly: boolean, code: string): string | undefined {
  if (code === "EISDIR") return imageOfFolder(path);
  if (!ONLY_WRITING.includes(code)) return undefined;
  const canBeRead = !isReadonly && isReadable(path);
  if (code === "EACCES" || code === "EPERM") {
    const right = `ask its owner for the right to ${isReadonly ? "read" : canBeRead ? "write" : "read and write"} it`;
    return canBeRead ? `attach it readonly, or ${right}` : right;
  }
  return canBeRead ? `attach it readonly${code === "EBUSY" ? ", or unmount it" : ""}` : undefined;
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

function imageOfFolder(path: string): string {
  const image = shellWord(freshPath(path, ".ext4"));
  return `make an image of it, of a size that fits: mke2fs -q -t ext4 -d ${shellWord(path)} ${image} 1G`;
}

/** A loop device of a read-only file opens for writing, and fails each write. */
function checkIsWritable(path: string, fd: number): void {
  const isReadonly = new Int32Array(1);
  ioctlStruct(fd, "BLKROGET", BLKROGET, isReadonly);
  if (isReadonly[0] !== 0) throw new DiskError(`${path}: a read-only device`, { cure: "attach it readonly" });
}

function readAt(fd: number, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  return bytes.subarray(0, readSync(fd, bytes, 0, length, position));
}

/** The advice is about a copy: what has no whole blocks may not be a disk at all. */
function notWholeBlocks(path: string, size: number, blockSize: number): DiskError {
  const copy = shellWord(freshPath(path, ".raw"));
  return new DiskError(
    `${path}: ${String(size)} bytes are not a multiple of the block size ${String(blockSize)} (${String(size % blockSize)} over)`,
    {
      cure: `if it is a raw disk image, extend a copy: cp ${shellWord(path)} ${copy} && truncate -s %${String(blockSize)} ${copy}`,
    },
  );
}

function sizeOf(path: string, fd: number, stat: Stats): number {
  if (stat.isFile()) return stat.size;
  if (stat.isBlockDevice()) {
    const size = new BigUint64Array(1);
    ioctlStruct(fd, "BLKGETSIZE64", BLKGETSIZE64, size);
    return Number(size[0]);
  }
  if (stat.isDirectory()) throw new DiskError(`${path}: a directory, not a disk image`, { cure: imageOfFolder(path) });
  throw new DiskError(`${path}: neither a file nor a block device`);
}
