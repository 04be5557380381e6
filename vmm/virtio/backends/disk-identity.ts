// Whether a disk is still the one that a saved guest had: a guest holds parts of its file systems in memory, and with
// other contents below them it would destroy them. A file that is in its place must not have been written to
// since. A copy, which has times of its own, is known by its size and by blocks all over it.
import { fstatSync, readSync } from "node:fs";
import { StateError, type StateReader } from "../../../devices/state.js";
import { DiskError } from "../../errors.js";
import type { DiskFile } from "./disk-file.js";
import { MAX_PARTS } from "./parts-manifest.js";

export type DiskIdentity = FileIdentity | PartsIdentity;

/** Of a disk of parts: each of them, whatever list names them. */
export type PartsIdentity = {
  readonly kind: "parts";
  /** `bytes` */
  readonly size: number;
  readonly parts: readonly FileIdentity[];
};

export type FileIdentity = {
  readonly kind: "file" | "device";
  /** `bytes` */
  readonly size: number;
  /** Numbers that together name a file of this host. */
  readonly device: string;
  readonly inode: string;
  /** When its contents were last changed, nanoseconds since 1970. */
  readonly modifiedNs: string;
  /** Fingerprint of the sampled blocks: 16 hexadecimal digits. */
  readonly sample: string;
};

/** `bytes` of a block; blocks are spread evenly, the first and the last among them. */
const SAMPLE_BYTES = 4096;
const SAMPLES = 64;
const FINGERPRINT = /^[0-9a-f]{16}$/;
const DIGITS = /^-?\d{1,20}$/;
const MAX_DIGITS = 21;

type OpenDisk = Pick<DiskFile, "fd" | "size" | "parts">;

/** Only while nobody writes to the disk. */
export function diskIdentity(file: OpenDisk): DiskIdentity {
  if (file.parts !== undefined) return { kind: "parts", size: file.size, parts: file.parts.map(fileIdentity) };
  return fileIdentity(file);
}

function fileIdentity(file: OpenDisk): FileIdentity {
  return { ...placeOf(file), sample: sampleOf(file.fd, file.size) };
}

type Place = Omit<FileIdentity, "sample">;

function placeOf({ fd, size }: OpenDisk): Place {
  const stat = fstatSync(fd, { bigint: true });
  const isDevice = stat.isBlockDevice();
  return {
    kind: isDevice ? "device" : "file",
    size,
    device: String(isDevice ? stat.rdev : stat.dev),
    inode: String(isDevice ? 0 : stat.ino),
    // That of a device's node says nothing about what is in it.
    modifiedNs: String(isDevice ? 0 : stat.mtimeNs),
  };
}

export function readDiskIdentity(state: StateReader): DiskIdentity {
  if (state.oneOf("kind", ["file", "device", "parts"]) !== "parts") return readFileIdentity(state);
  state.only(["kind", "size", "parts"]);
  return {
    kind: "parts",
    size: state.integer("size", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    parts: state.list("parts", { minimum: 1, maximum: MAX_PARTS }).map(readFileIdentity),
  };
}

function readFileIdentity(state: StateReader): FileIdentity {
  state.only(["kind", "size", "device", "inode", "modifiedNs", "sample"]);
  const sample = state.text("sample", 16);
  if (!FINGERPRINT.test(sample)) throw state.at("sample").wrong("16 hexadecimal digits");
  return {
    kind: state.oneOf("kind", ["file", "device"]),
    size: state.integer("size", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    device: digits(state.at("device")),
    inode: digits(state.at("inode")),
    modifiedNs: digits(state.at("modifiedNs")),
    sample,
  };
}

/** In words, why the file cannot take the place of the `saved` one; undefined if it can. */
export function diskDifference(saved: DiskIdentity, file: OpenDisk): string | undefined {
  const { parts } = file;
  if (saved.kind !== "parts") {
    return parts === undefined ? fileDifference(saved, file) : "it is made of parts, and was one file";
  }
  if (parts === undefined) return "it is one file, and was made of parts";
  if (parts.length !== saved.parts.length) {
    return `it has ${String(parts.length)} parts, and had ${String(saved.parts.length)}`;
  }
  for (const [index, part] of parts.entries()) {
    const before = saved.parts[index];
    const difference = before === undefined ? undefined : fileDifference(before, part);
    if (difference !== undefined) return `of its part ${part.path}: ${difference}`;
  }
  return undefined;
}

function fileDifference(saved: FileIdentity, file: OpenDisk): string | undefined {
  const now = placeOf(file);
  if (now.size !== saved.size) return `it has ${String(now.size)} bytes, and had ${String(saved.size)}`;
  if (now.kind === "file" && now.device === saved.device && now.inode === saved.inode) {
    if (now.modifiedNs === saved.modifiedNs) return undefined;
    return `it was written to at ${timeOf(now.modifiedNs)}, and before the snapshot last at ${timeOf(saved.modifiedNs)}`;
  }
  return sampleOf(file.fd, file.size) === saved.sample ? undefined : "its contents are others";
}

/** Throws DiskError, with the reason, if the disk is not the one of the saved state; StateError for a bad one. */
export function checkDiskIdentity(file: OpenDisk & Pick<DiskFile, "path">, state: StateReader): void {
  const difference = diskDifference(readDiskIdentity(state), file);
  if (difference === undefined) return;
  throw new DiskError(`${file.path}: not as it was when the snapshot was made: ${difference}`, {
    cure: "restore the snapshot with a copy of the disk that was made together with it",
  });
}

function sampleOf(fd: number, size: number): string {
  const block = new Uint8Array(SAMPLE_BYTES);
  const words = new Uint32Array(block.buffer);
  const last = Math.max(0, size - SAMPLE_BYTES);
  const count = Math.min(SAMPLES, Math.ceil(size / SAMPLE_BYTES));
  let low = size >>> 0;
  let high = count;
  for (let index = 0; index < count; index++) {
    const position = count === 1 ? 0 : Math.floor((last * index) / (count - 1));
    // The end of a short read is that of the block before: it is the same each time.
    readSync(fd, block, 0, SAMPLE_BYTES, position);
    for (const word of words) {
      // Two multiplicative hashes that differ. Against accidents: whoever means harm can keep times and blocks.
      low = Math.imul(low ^ word, 0x0100_0193);
      low ^= low >>> 15;
      high = Math.imul(high ^ word, 0x85eb_ca6b);
      high ^= high >>> 13;
    }
  }
  return hexadecimal(high) + hexadecimal(low);
}

function hexadecimal(word: number): string {
  return (word >>> 0).toString(16).padStart(8, "0");
}

function digits(state: StateReader): string {
  const text = state.asText(MAX_DIGITS);
  if (!DIGITS.test(text)) throw new StateError(state.path, `${JSON.stringify(text)} is not a number in text`);
  return text;
}

function timeOf(ns: string): string {
  const ms = Number(ns) / 1e6;
  const isDate = Math.abs(ms) <= 8.64e15;
  return isDate ? new Date(ms).toISOString() : `${ns} ns since 1970`;
}
