// The disks of a VM: what a caller may ask for, checked as far as that goes without the host.
import { basename } from "node:path";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import type { Checked } from "./check.js";
import { MAX_VIRTIO_DEVICES } from "./defaults.js";
import { RATE_LIMITER_SCHEMA } from "./rate-limiter.js";
import { PATH_SCHEMA } from "./schema.js";
import { show } from "./show.js";

/** "unsafe" ignores the guest's flushes: fast, and lost if the host crashes. */
export type DiskCache = "writeback" | "unsafe";

/**
 * "auto" refuses an image of another format, "raw" takes every file as it is: a guest may write anything there.
 * "parts": the file lists others, in JSON, which one after the other are the disk; only read-only.
 */
export type DiskFormat = "auto" | "raw" | "parts";

/** A raw image or block device as a virtio disk: /dev/vda, /dev/vdb, … in the order given. */
export interface DiskConfig {
  readonly path: string;
  /** The kernel's root file system (`root=`), even on a bare command line; one disk at most. */
  readonly isRoot?: boolean | undefined;
  /** Of the root file system's partition on a root disk: the kernel finds it by that, and not by the disk's name. */
  readonly partuuid?: string | undefined;
  readonly isReadonly?: boolean | undefined;
  readonly format?: DiskFormat | undefined;
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
  readonly partuuid: string | undefined;
  readonly isReadonly: boolean;
  readonly format: DiskFormat;
  readonly id: string;
  readonly cache: DiskCache;
  readonly blockSize: 512 | 4096;
  readonly lock: boolean;
  readonly rateLimiter: RateLimiterConfig | undefined;
}

/** VIRTIO_BLK_ID_BYTES. */
const MAX_ID_LENGTH = 20;
/** A GPT's has 36, an MBR's 11; `/PARTNROFF=` may follow. */
const MAX_PARTUUID_LENGTH = 64;

export const DISK_SCHEMA = {
  type: "object",
  title: "Disk",
  properties: {
    path: PATH_SCHEMA,
    isRoot: { type: "boolean" },
    partuuid: {
      type: "string",
      pattern: `^[\\x21-\\x7e]{1,${String(MAX_PARTUUID_LENGTH)}}$`,
      "x-expected": `1 to ${String(MAX_PARTUUID_LENGTH)} printable characters without spaces`,
    },
    isReadonly: { type: "boolean" },
    format: { enum: ["auto", "raw", "parts"] },
    id: {
      type: "string",
      pattern: `^[\\x21-\\x7e]{1,${String(MAX_ID_LENGTH)}}$`,
      "x-expected": `1 to ${String(MAX_ID_LENGTH)} printable characters without spaces`,
    },
    cache: { enum: ["writeback", "unsafe"] },
    blockSize: { enum: [512, 4096] },
    lock: { type: "boolean" },
    rateLimiter: RATE_LIMITER_SCHEMA,
  },
  required: ["path"],
  additionalProperties: false,
} as const;

export const DISKS_SCHEMA = { type: "array", items: DISK_SCHEMA, maxItems: MAX_VIRTIO_DEVICES } as const;

type CheckedDisk = Checked<typeof DISK_SCHEMA>;

/** Linux's name of the virtio disk `index`: vda to vdz. */
export function diskName(index: number): string {
  return `vd${String.fromCharCode("a".charCodeAt(0) + index)}`;
}

/** Resolves all disks; what is wrong with them together goes into `problems`. One that is no object is undefined. */
export function resolveDisks(disks: readonly (CheckedDisk | undefined)[], problems: string[]): ResolvedDisk[] {
  const given = disks.map((disk) => disk ?? {});
  const roots = given.filter(({ isRoot }) => isRoot === true);
  if (roots.length > 1) {
    problems.push(`Only one disk can be the root, given are ${roots.map(({ path = "" }) => path).join(", ")}`);
  }
  for (const { path = "", format, isReadonly } of given) {
    if (format === "parts" && isReadonly !== true) problems.push(`Disk ${path}: a disk of parts is read-only: say so`);
  }
  // Two disks may have the same default id; an id that the caller writes must find one disk.
  const written = given.flatMap(({ id }) => (id === undefined ? [] : [id]));
  for (const id of new Set(written.filter((id, at) => written.indexOf(id) !== at))) {
    problems.push(`Disk id ${show(id)} is given to more than one disk`);
  }
  return given.map(resolveDisk);
}

/** What tells the kernel which disk its root is: `root=/dev/vda rw`, or `root=PARTUUID=… rw`. */
export function rootParameters(disks: readonly ResolvedDisk[]): string[] {
  const index = disks.findIndex(({ isRoot }) => isRoot);
  const root = disks[index];
  if (root === undefined) return [];
  const where = root.partuuid === undefined ? `/dev/${diskName(index)}` : `PARTUUID=${root.partuuid}`;
  return [`root=${where}`, root.isReadonly ? "ro" : "rw"];
}

function resolveDisk({ path = "", ...disk }: CheckedDisk): ResolvedDisk {
  return {
    path,
    isRoot: disk.isRoot ?? false,
    partuuid: disk.partuuid,
    isReadonly: disk.isReadonly ?? false,
    format: disk.format ?? "auto",
    id: disk.id ?? asId(basename(path)),
    cache: disk.cache ?? "writeback",
    blockSize: disk.blockSize ?? 512,
    lock: disk.lock ?? true,
    rateLimiter: disk.rateLimiter,
  };
}

/** As much of a text as an id can be. */
export function asId(text: string): string {
  return text.replace(/[^\x21-\x7e]/g, "_").slice(0, MAX_ID_LENGTH);
}
