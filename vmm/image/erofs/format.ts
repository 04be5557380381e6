// The read-only file system EROFS as Linux reads it since 5.4, of which this writes the plain part: Linux
// Documentation/filesystems/erofs.rst; fs/erofs/erofs_fs.h. All numbers are little-endian.

export const BLOCK_SIZE = 4096;
export const BLOCK_BITS = 12;

export const EROFS_SUPER_OFFSET = 1024;
export const EROFS_SUPER_MAGIC_V1 = 0xe0f5e1e2;
export const SUPER_BLOCK_SIZE = 128;
/** The checksum is good; i_mtime is the time of modification. */
export const EROFS_FEATURE_COMPAT_SB_CHKSUM = 0x1;
export const EROFS_FEATURE_COMPAT_MTIME = 0x2;

/** Inodes are named by their place in units of so many bytes. */
export const ISLOT_SIZE = 32;
/** i_format: bit 0 is 1 for an inode of 64 bytes, bits 1 to 3 tell where the data lies. */
export const EXTENDED_INODE_SIZE = 64;
const EXTENDED = 1;
export const FORMAT_FLAT_PLAIN = EXTENDED | (0 << 1);
/** The last, partial block lies behind the inode. */
export const FORMAT_FLAT_INLINE = EXTENDED | (2 << 1);

export const DIRENT_SIZE = 12;
export const XATTR_HEADER_SIZE = 12;
export const XATTR_ENTRY_SIZE = 4;
/** i_xattr_icount counts words of four bytes behind the header, and 1 for that. */
export const MAX_XATTR_BYTES = XATTR_HEADER_SIZE + 4 * (0xffff - 1);

export const S_IFMT: Readonly<Record<string, number>> = {
  fifo: 0o010000,
  char: 0o020000,
  folder: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
};

/** EROFS_FT_*: the type in a directory. */
export const FILE_TYPES: Readonly<Record<string, number>> = {
  file: 1,
  folder: 2,
  char: 3,
  block: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
};

/** e_name_index: the start of a name that is not written out. */
export const XATTR_PREFIXES: readonly (readonly [prefix: string, index: number])[] = [
  ["user.", 1],
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["trusted.", 4],
  ["security.", 6],
];

/** As <linux/kdev_t.h>, new_encode_dev(). */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

const CRC32C_POLYNOMIAL = 0x82f63b78;
let crcTable: Uint32Array | undefined;

/** CRC-32C without the final inversion, as the kernel's crc32c(~0, …). */
export function crc32c(bytes: Uint8Array): number {
  if (crcTable === undefined) {
    crcTable = new Uint32Array(256);
    for (let value = 0; value < 256; value++) {
      let word = value;
      for (let bit = 0; bit < 8; bit++) word = (word & 1) !== 0 ? (word >>> 1) ^ CRC32C_POLYNOMIAL : word >>> 1;
      crcTable[value] = word;
    }
  }
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0);
  return crc >>> 0;
}
