// A block of a tar archive that begins an entry: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar 1.34, "Basic Tar
// Format"; star(5). Texts are bytes, one character each ("latin1"): in a layer, names may be in any encoding or none.
import { ImageError } from "../../errors.js";

export const TAR_BLOCK = 512;

export interface TarHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** `bytes` behind the header. */
  readonly size: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** One character; "\0" as "0". */
  readonly type: string;
  readonly linkName: string;
  readonly major: number;
  readonly minor: number;
  /** The block itself, for what only old GNU archives have. */
  readonly block: Buffer;
}

/** Undefined for a block of zeroes, which ends an archive. Throws ImageError for one that begins no entry. */
export function parseHeader(block: Buffer): TarHeader | undefined {
  const sum = checksum(block);
  if (sum.unsigned === 0) return undefined;
  const [, digits = ""] = /^[ \0]*([0-7]+)/.exec(block.toString("latin1", 148, 156)) ?? [];
  const expected = digits === "" ? undefined : Number.parseInt(digits, 8);
  if (expected !== sum.unsigned && expected !== sum.signed) {
    throw new ImageError("Not a tar archive, or a damaged one: a header's checksum is wrong");
  }
  const magic = block.toString("latin1", 257, 265);
  const isStar = magic.startsWith("ustar\0") && block.toString("latin1", 508, 512) === "tar\0";
  // GNU's own header has other things where POSIX has the start of a long name.
  const prefix = magic.startsWith("ustar\0") ? text(block, 345, isStar ? 131 : 155) : "";
  const name = text(block, 0, 100);
  const type = block.toString("latin1", 156, 157);
  const isDevice = type === "3" || type === "4";
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: number(block, 100, 8, "mode"),
    uid: number(block, 108, 8, "uid"),
    gid: number(block, 116, 8, "gid"),
    size: number(block, 124, 12, "size"),
    mtime: number(block, 136, 12, "mtime"),
    type: type === "\0" ? "0" : type,
    linkName: text(block, 157, 100),
    major: isDevice ? number(block, 329, 8, "devmajor") : 0,
    minor: isDevice ? number(block, 337, 8, "devminor") : 0,
    block,
  };
}

function checksum(block: Buffer): { unsigned: number; signed: number } {
  let unsigned = 0;
  let high = 0;
  let isZero = true;
  for (let at = 0; at < TAR_BLOCK; at++) {
    const byte = block[at] ?? 0;
    if (byte !== 0) isZero = false;
    const counted = at >= 148 && at < 156 ? 0x20 : byte;
    unsigned += counted;
    if (counted >= 0x80) high++;
  }
  // Some old programs added up signed characters.
  return isZero ? { unsigned: 0, signed: 0 } : { unsigned, signed: unsigned - 256 * high };
}

function text(block: Buffer, start: number, length: number): string {
  const end = block.indexOf(0, start);
  return block.toString("latin1", start, end < 0 ? start + length : Math.min(end, start + length));
}

/** Octal digits between spaces and zero bytes, or, with the first bit set, a binary number of two's complement. */
export function number(block: Buffer, start: number, length: number, what: string): number {
  const first = block[start] ?? 0;
  if ((first & 0x80) !== 0) {
    const isNegative = (first & 0x40) !== 0;
    let value = BigInt.asIntN(7, BigInt(first & 0x7f));
    for (let at = start + 1; at < start + length; at++) value = value * 256n + BigInt(block[at] ?? 0);
    const result = Number(value);
    if (!Number.isSafeInteger(result))
      throw new ImageError(`A tar header's ${what} is too ${isNegative ? "small" : "large"}`);
    return result;
  }
  const digits = block.toString("latin1", start, start + length).replace(/^[ \0]+|[ \0].*$/gs, "");
  if (digits === "") return 0;
  if (!/^[0-7]+$/.test(digits)) throw new ImageError(`A tar header's ${what} is not a number`);
  return Number.parseInt(digits, 8);
}
