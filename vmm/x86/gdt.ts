// Flat segments for the boot processor, and the null IDT.
// Intel SDM vol. 3 §3.4.5; selectors as the 64-bit boot protocol and PVH want them.
import type { GuestMemory } from "../../devices/contracts.js";
import { BOOT_GDT_GPA, BOOT_IDT_GPA } from "../memory/layout.js";

/** __BOOT_CS and __BOOT_DS of the boot protocol. */
export const BOOT_CS = 0x10;
export const BOOT_DS = 0x18;
export const BOOT_TSS = 0x20;
export const GDT_LIMIT = 5 * 8 - 1;
export const IDT_LIMIT = 7;

/** A segment as KVM_SET_SREGS takes it. */
export interface Segment {
  readonly base: number;
  readonly limit: number;
  readonly selector: number;
  readonly type: number;
  readonly dpl: number;
  /** Default operand size 32. */
  readonly db: 0 | 1;
  /** Code or data, not a system segment. */
  readonly s: 0 | 1;
  /** 64-bit code. */
  readonly l: 0 | 1;
  /** Limit in pages. */
  readonly g: 0 | 1;
}

const TYPE_CODE = 11; // execute, read, accessed
const TYPE_DATA = 3; // read, write, accessed
const TYPE_TSS_BUSY = 11;

function flat(selector: number, type: number, db: 0 | 1, l: 0 | 1): Segment {
  return { base: 0, limit: 0xffff_ffff, selector, type, dpl: 0, db, s: 1, l, g: 1 };
}

export const CODE_64 = flat(BOOT_CS, TYPE_CODE, 0, 1);
export const CODE_32 = flat(BOOT_CS, TYPE_CODE, 1, 0);
export const DATA = flat(BOOT_DS, TYPE_DATA, 1, 0);
export const TSS: Segment = {
  base: 0,
  limit: 0x67,
  selector: BOOT_TSS,
  type: TYPE_TSS_BUSY,
  dpl: 0,
  db: 0,
  s: 0,
  l: 0,
  g: 0,
};

/** The descriptor's 8 bytes for segments with base 0. */
export function encodeDescriptor(segment: Segment): bigint {
  const limit = segment.g === 1 ? segment.limit >>> 12 : segment.limit;
  const access = segment.type | (segment.s << 4) | (segment.dpl << 5) | (1 << 7);
  const flags = (segment.l << 1) | (segment.db << 2) | (segment.g << 3);
  return (
    BigInt(limit & 0xffff) |
    (BigInt(segment.base & 0xff_ffff) << 16n) |
    (BigInt(access) << 40n) |
    (BigInt((limit >> 16) & 0xf) << 48n) |
    (BigInt(flags) << 52n) |
    (BigInt(segment.base >>> 24) << 56n)
  );
}

export function writeGdt(memory: GuestMemory, code: Segment): void {
  for (const segment of [code, DATA, TSS]) {
    memory.writeU64(BOOT_GDT_GPA + segment.selector, encodeDescriptor(segment));
  }
  memory.writeU64(BOOT_GDT_GPA, 0n);
  memory.writeU64(BOOT_IDT_GPA, 0n);
}
