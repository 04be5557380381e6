// Finds a partition by what its disk's partition table says of it, as the kernel does for root=PARTUUID= and
// root=PARTLABEL=, for vmlet's init, which opens devices by name alone. UEFI 2.10 §5.3; block/partitions/.
// The tables may have been written by a guest: everything is bounded, and only compared.
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { kindOf } from "../host/file-kinds.js";

const SECTOR = 512;
/** As many as the specification reserves room for, and Linux has minor numbers for on a virtio disk. */
const MAX_ENTRIES = 128;
const ENTRY_SIZE = 128;
/** Linux gives a logical partition the numbers from 5 on; only the four of the table itself are looked at. */
const MBR_ENTRIES = 4;
const GPT_PROTECTIVE = 0xee;

export interface Partition {
  /** From 1 on: vda1. */
  readonly number: number;
  readonly uuid: string;
  readonly label: string;
}

/** What is on a raw image or block device. */
export interface DiskContent {
  readonly partitions: readonly Partition[];
  /** The whole disk is one. */
  readonly isFileSystem: boolean;
}

/**
 * Of a disk with blocks of `blockSize` bytes; nothing if it cannot be read, which is said where it is opened
 * as a disk.
 */
export function contentOf(path: string, blockSize = SECTOR): DiskContent {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      // The size of a block device is not told here, and a disk has room for what is looked for.
      const size = stat.isFile() ? stat.size : Number.MAX_SAFE_INTEGER;
      if (!stat.isFile() && !stat.isBlockDevice()) return NOTHING;
      const read = (position: number, length: number): Buffer => {
        const bytes = Buffer.alloc(length);
        readSync(fd, bytes, 0, length, position);
        return bytes;
      };
      const kind = kindOf({ size, read });
      const isFileSystem = kind !== undefined && "is" in kind.role && kind.role.is === "file system";
      const header = read(blockSize, SECTOR);
      if (header.toString("latin1", 0, 8) !== "EFI PART") {
        return { partitions: isFileSystem ? [] : mbrPartitions(read(0, SECTOR)), isFileSystem };
      }
      const partitions = gptPartitions(header, (block, length) => read(block * blockSize, length));
      return { partitions, isFileSystem: false };
    } finally {
      closeSync(fd);
    }
  } catch {
    return NOTHING;
  }
}

const NOTHING: DiskContent = { partitions: [], isFileSystem: false };

function gptPartitions(header: Buffer, readBlocks: (block: number, length: number) => Buffer): Partition[] {
  const start = Number(header.readBigUInt64LE(72));
  const count = Math.min(header.readUInt32LE(80), MAX_ENTRIES);
  if (header.readUInt32LE(84) !== ENTRY_SIZE || !Number.isSafeInteger(start * ENTRY_SIZE)) return [];
  const table = readBlocks(start, count * ENTRY_SIZE);
  return Array.from({ length: count }, (_, index) => {
    const entry = table.subarray(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
    const isUsed = entry.subarray(0, 16).some((byte) => byte !== 0);
    const label = entry.toString("utf16le", 56, 128).replace(/\0.*$/s, "");
    return isUsed ? [{ number: index + 1, uuid: guid(entry.subarray(16, 32)), label }] : [];
  }).flat();
}

/** The first three groups are numbers, little-endian. */
function guid(bytes: Buffer): string {
  const groups = [
    bytes.subarray(0, 4).reverse(),
    bytes.subarray(4, 6).reverse(),
    bytes.subarray(6, 8).reverse(),
    bytes.subarray(8, 10),
    bytes.subarray(10, 16),
  ];
  return groups.map((group) => group.toString("hex")).join("-");
}

/** The disk's signature and the partition's number. */
function mbrPartitions(sector: Buffer): Partition[] {
  if (sector.readUInt16LE(510) !== 0xaa55) return [];
  // Of a GPT disk: its table is elsewhere, for blocks of another size for example.
  if ([0, 1, 2, 3].some((index) => sector[0x1be + index * 16 + 4] === GPT_PROTECTIVE)) return [];
  const signature = sector.readUInt32LE(0x1b8).toString(16).padStart(8, "0");
  return Array.from({ length: MBR_ENTRIES }, (_, index) => {
    const isUsed = sector.readUInt32LE(0x1be + index * 16 + 12) > 0;
    const number = index + 1;
    return isUsed ? [{ number, uuid: `${signature}-${number.toString(16).padStart(2, "0")}`, label: "" }] : [];
  }).flat();
}
