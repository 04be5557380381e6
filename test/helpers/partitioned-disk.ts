// Disks with a partition table, so far as Linux reads it: GPT with its checksums, or MBR.

const SECTOR = 512;
const ENTRIES = 128;
const ENTRY_SIZE = 128;
/** "Linux file system", as it stands on the disk. */
const LINUX_TYPE = Buffer.from("af3dc60f838472478e793d69d8477de4", "hex");
/** Where the first partition begins, `sectors`. */
export const FIRST_SECTOR = 2048;

/** The polynomial of zip and GPT, a bit at a time. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : 0xedb8_8320);
  }
  return ~crc >>> 0;
}

export interface TestPartition {
  readonly uuid: string;
  readonly label: string;
  readonly content: Uint8Array;
}

/** A GPT disk, its partitions one after the other; `entries` says at which place of the table each stands. */
export function gptDisk(partitions: readonly TestPartition[], blockSize = SECTOR): Buffer {
  const first = (FIRST_SECTOR * SECTOR) / blockSize;
  const table = Buffer.alloc(ENTRIES * ENTRY_SIZE);
  let at = first;
  const starts = partitions.map(({ uuid, label, content }, index) => {
    const start = at;
    at += Math.ceil(content.length / blockSize);
    const entry = table.subarray(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
    LINUX_TYPE.copy(entry);
    entry.set(guidBytes(uuid), 16);
    entry.writeBigUInt64LE(BigInt(start), 32);
    entry.writeBigUInt64LE(BigInt(at - 1), 40);
    entry.write(label, 56, "utf16le");
    return start;
  });
  const blocks = at + first;
  const disk = Buffer.alloc(blocks * blockSize);
  partitions.forEach(({ content }, index) => disk.set(content, (starts[index] ?? 0) * blockSize));
  // The protective MBR.
  disk[0x1c2] = 0xee;
  disk.writeUInt32LE(1, 0x1c6);
  disk.writeUInt32LE(blocks - 1, 0x1ca);
  disk.writeUInt16LE(0xaa55, 510);
  table.copy(disk, 2 * blockSize);
  table.copy(disk, (blocks - 1) * blockSize - table.length);
  const tableBlocks = table.length / blockSize;
  for (const [own, other, tableAt] of [
    [1, blocks - 1, 2],
    [blocks - 1, 1, blocks - 1 - tableBlocks],
  ] as const) {
    const header = disk.subarray(own * blockSize, own * blockSize + 92);
    header.write("EFI PART");
    header.writeUInt32LE(0x1_0000, 8);
    header.writeUInt32LE(92, 12);
    header.writeBigUInt64LE(BigInt(own), 24);
    header.writeBigUInt64LE(BigInt(other), 32);
    header.writeBigUInt64LE(BigInt(2 + tableBlocks), 40);
    header.writeBigUInt64LE(BigInt(blocks - 2 - tableBlocks), 48);
    header.set(guidBytes("00000000-1111-2222-3333-444444444444"), 56);
    header.writeBigUInt64LE(BigInt(tableAt), 72);
    header.writeUInt32LE(ENTRIES, 80);
    header.writeUInt32LE(ENTRY_SIZE, 84);
    header.writeUInt32LE(crc32(table), 88);
    header.writeUInt32LE(crc32(header), 16);
  }
  return disk;
}

/** An MBR disk with one partition, which is the `number`th of the table. */
export function mbrDisk(signature: number, number: number, content: Uint8Array): Buffer {
  const start = FIRST_SECTOR;
  const sectors = Math.ceil(content.length / SECTOR);
  const disk = Buffer.alloc((start + sectors) * SECTOR);
  disk.writeUInt32LE(signature, 0x1b8);
  const entry = 0x1be + (number - 1) * 16;
  disk[entry + 4] = 0x83;
  disk.writeUInt32LE(start, entry + 8);
  disk.writeUInt32LE(sectors, entry + 12);
  disk.writeUInt16LE(0xaa55, 510);
  disk.set(content, start * SECTOR);
  return disk;
}

/** As it stands on the disk: the first three groups are little-endian. */
function guidBytes(uuid: string): Buffer {
  const [a = "", b = "", c = "", d = "", e = ""] = uuid.split("-");
  const little = [a, b, c].map((group) => Buffer.from(group, "hex").reverse());
  return Buffer.concat([...little, Buffer.from(d + e, "hex")]);
}
