// The disks of a VM: what a caller may ask for, checked as far as that goes without the host.
import { basename } from "node:path";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import { checkKeys } from "./checks.js";
import { checkRateLimiter } from "./rate-limits.js";

/** "unsafe" ignores the guest's flushes: fast, and lost if the host crashes. */
export type DiskCache = "writeback" | "unsafe";

/** A raw image or block device as a virtio disk: /dev/vda, /dev/vdb, … in the order given. */
export interface DiskConfig {
  readonly path: string;
  /** The kernel's root file system (`root=`), even on a bare command line; one disk at most. */
  readonly isRoot?: boolean | undefined;
  readonly isReadonly?: boolean | undefined;
  /** Serial number in the guest, up to 20 characters; default: the start of the file's name. */
  readonly id?: string | undefined;
  readonly cache?: DiskCache | undefined;
  /** `bytes` of a logical block: 512 or 4096. */
  readonly blockSize?: 512 | 4096 | undefined;
  /** False: no look whether another guest has the image; one that both write, or one writes, is spoiled. */
  readonly lock?: boolean | undefined;
  readonly rateLimiter?: RateLimiterConfig | undefined;
}

export interface ResolvedDisk {
  readonly path: string;
  readonly isRoot: boolean;
  readonly isReadonly: boolean;
  readonly id: string;
  readonly cache: DiskCache;
  readonly blockSize: 512 | 4096;
  readonly lock: boolean;
  readonly rateLimiter: RateLimiterConfig | undefined;
}

/** VIRTIO_BLK_ID_BYTES. */
const MAX_ID_LENGTH = 20;
const KEYS: readonly (keyof DiskConfig)[] = [
  "path",
  "isRoot",
  "isReadonly",
  "id",
  "cache",
  "blockSize",
  "lock",
  "rateLimiter",
];

/** Linux's name of the virtio disk `index`: vda to vdz. */
export function diskName(index: number): string {
  return `vd${String.fromCharCode("a".charCodeAt(0) + index)}`;
}

/** Resolves all disks; everything that is wrong with any of them goes into `problems`. */
export function resolveDisks(disks: readonly DiskConfig[], problems: string[]): ResolvedDisk[] {
  const resolved = disks.map((disk, index) => resolveDisk(disk, `Disk ${String(index + 1)}`, problems));
  const roots = resolved.filter(({ isRoot }) => isRoot);
  if (roots.length > 1) {
    problems.push(`Only one disk can be the root, given are ${roots.map(({ path }) => path).join(", ")}`);
  }
  // Two disks may have the same default id; whoever writes one wants to find the disk by it.
  const written = disks.flatMap(({ id }) => (id === undefined ? [] : [id]));
  for (const id of new Set(written.filter((id, at) => written.indexOf(id) !== at))) {
    problems.push(`Disk id ${JSON.stringify(id)} is given to more than one disk`);
  }
  return resolved;
}

/** What tells the kernel which disk its root is: `root=/dev/vda rw`. */
export function rootParameters(disks: readonly ResolvedDisk[]): string[] {
  const index = disks.findIndex(({ isRoot }) => isRoot);
  return index < 0 ? [] : [`root=/dev/${diskName(index)}`, disks[index]?.isReadonly === true ? "ro" : "rw"];
}

function resolveDisk(disk: DiskConfig, what: string, problems: string[]): ResolvedDisk {
  checkKeys(what, disk, KEYS, problems);
  // What comes from JavaScript may lack it.
  const path = (disk.path as string | undefined) ?? "";
  const { id, cache = "writeback", blockSize = 512, lock = true, rateLimiter } = disk;
  if (path === "") problems.push(`${what}: no path is given`);
  if (path.includes("\0")) problems.push(`${what}: its path has a NUL character`);
  if (id !== undefined && !/^[\x21-\x7e]{1,20}$/.test(id)) {
    problems.push(
      `${what}: id ${JSON.stringify(id)} is not 1 to ${String(MAX_ID_LENGTH)} printable characters without spaces`,
    );
  }
  if (!["writeback", "unsafe"].includes(cache)) {
    problems.push(`${what}: cache ${JSON.stringify(cache)} is not one of writeback, unsafe`);
  }
  if (![512, 4096].includes(blockSize)) {
    problems.push(`${what}: block size ${String(blockSize)} is not one of 512, 4096`);
  }
  checkRateLimiter(rateLimiter, what, problems);
  return {
    path,
    isRoot: disk.isRoot ?? false,
    isReadonly: disk.isReadonly ?? false,
    id: id ?? defaultId(path),
    cache,
    blockSize,
    lock,
    rateLimiter,
  };
}

function defaultId(path: string): string {
  return basename(path)
    .replace(/[^\x21-\x7e]/g, "_")
    .slice(0, MAX_ID_LENGTH);
}
