// A raw image or a block device of the host, opened and checked before the guest exists.
import { closeSync, constants, fstatSync, openSync, statSync, type Stats } from "node:fs";
import { DiskError } from "../../errors.js";
import { IOR } from "../../sys/ioctl.js";
import { ioctlStruct } from "../../sys/ioctl-calls.js";
import { lockDisk } from "./disk-lock.js";

/** linux/fs.h: size of a block device in bytes. */
const BLKGETSIZE64 = IOR(0x12, 114, 8);

const OPEN_PROBLEMS: Readonly<Record<string, readonly [problem: string, cure?: string]>> = {
  ENOENT: ["no such file"],
  EACCES: ["permission denied", "change its permissions, or attach it read-only"],
  EPERM: ["permission denied", "change its permissions, or attach it read-only"],
  EROFS: ["on a read-only file system", "attach it read-only"],
  EISDIR: ["a directory, not a disk image", "make an image of it first, for example with mke2fs -d"],
  ENOTDIR: ["a part of the path is not a directory"],
  ETXTBSY: ["a program that is running"],
  ENXIO: ["a device that is not there"],
  ENOMEDIUM: ["a drive without a medium"],
  EBUSY: ["in use by this host: mounted, or part of another device", "unmount it, or attach it read-only"],
};

export interface DiskFileOptions {
  readonly path: string;
  readonly isReadonly: boolean;
  /** `bytes` of the guest's logical block. */
  readonly blockSize: 512 | 4096;
  /** False: nobody is kept from writing what this one reads, nor from reading what it writes. */
  readonly isLocked?: boolean;
}

/** An open disk; whoever opened it closes it. */
export interface DiskFile {
  readonly path: string;
  readonly fd: number;
  /** `bytes` */
  readonly size: number;
  readonly isReadonly: boolean;
}

/** Throws DiskError for what cannot be a disk of the guest. */
export function openDiskFile({ path, isReadonly, blockSize, isLocked = true }: DiskFileOptions): DiskFile {
  // O_EXCL: a block device that is mounted says so; the kernel wants it only for those.
  const exclusive = isLocked && !isReadonly && isBlockDevice(path) ? constants.O_EXCL : 0;
  // O_NONBLOCK: a FIFO by mistake is refused below instead of waited for.
  const fd = open(path, (isReadonly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK | exclusive);
  try {
    const size = sizeOf(path, fd, fstatSync(fd));
    if (size === 0) throw new DiskError(`${path}: empty; a disk has at least one block of ${String(blockSize)} bytes`);
    if (size % blockSize !== 0) {
      const rest = size % blockSize;
      throw new DiskError(
        `${path}: ${String(size)} bytes are not a multiple of the block size ${String(blockSize)} (${String(rest)} over)`,
        { cure: `extend it: truncate -s %${String(blockSize)} FILE` },
      );
    }
    if (isLocked) lockDisk(path, fd, isReadonly);
    return { path, fd, size, isReadonly };
  } catch (error) {
    closeSync(fd);
    throw error;
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

function open(path: string, flags: number): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    const [problem, cure] = OPEN_PROBLEMS[code] ?? [`cannot be opened (${code})`];
    throw new DiskError(`${path}: ${problem}`, { cause: error, cure });
  }
}

function sizeOf(path: string, fd: number, stat: Stats): number {
  if (stat.isFile()) return stat.size;
  if (stat.isBlockDevice()) {
    const size = new BigUint64Array(1);
    ioctlStruct(fd, "BLKGETSIZE64", BLKGETSIZE64, size);
    return Number(size[0]);
  }
  const [problem, cure] = stat.isDirectory()
    ? (OPEN_PROBLEMS["EISDIR"] ?? [""])
    : ["neither a file nor a block device"];
  throw new DiskError(`${path}: ${problem}`, { cure });
}
