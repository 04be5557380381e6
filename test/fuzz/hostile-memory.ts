// Guest RAM that another processor of the guest writes to while the device reads it. Counts
// accesses, refuses whatever lies outside, and knows where the device may write. It is the monitor's
// own memory over an array: in one piece, or with what a large guest has, only smaller.
import { WindowedMemory } from "../../vmm/memory/windowed-memory.js";
import type { Random } from "./random.js";

/** "split": a hole between two regions, and views so short that most things lie in several. */
export type RamLayout = "flat" | "split";
export const RAM_LAYOUTS: readonly RamLayout[] = ["flat", "split"];

const HOLE_BYTES = 0x2000;
const SHORT_VIEWS = { viewBytes: 0x210, overlapBytes: 0x10, firstViewBytes: 0x20 };

/** More than any call may take: a loop that the driver has tied. */
const ENDLESS = 1_000_000;

export interface Range {
  readonly gpa: number;
  readonly length: number;
}

export class HostileMemory extends WindowedMemory {
  /** Behind the last byte of RAM. */
  readonly end: number;
  /** Where a driver has its rings and buffers. */
  readonly heapGpa: number;
  /** Reads and writes by the device since this was last set to 0. */
  accesses = 0;
  /** One read in this many is followed by a change of what was read; 0: none. */
  changeOneIn = 0;
  /** Where values may be written by the device; undefined: anywhere in RAM. */
  writable: readonly Range[] | undefined;
  readonly #random: Random;
  /** `bytes` below the hole. */
  readonly #lowBytes: number;
  readonly #holeBytes: number;

  constructor(size: number, random: Random, layout: RamLayout) {
    const ram = new Uint8Array(size);
    const isSplit = layout === "split";
    const lowBytes = isSplit ? size / 4 : size;
    const holeBytes = isSplit ? HOLE_BYTES : 0;
    const ranges = isSplit
      ? [
          { gpa: 0, size: lowBytes },
          { gpa: lowBytes + holeBytes, size: size - lowBytes },
        ]
      : [{ gpa: 0, size }];
    const options = isSplit ? SHORT_VIEWS : { viewBytes: 2 ** 32, overlapBytes: 0x1000 };
    super(ranges, (offset, length) => ram.subarray(offset, offset + length), options);
    this.#random = random;
    this.#lowBytes = lowBytes;
    this.#holeBytes = holeBytes;
    this.end = size + holeBytes;
    this.heapGpa = isSplit ? lowBytes + holeBytes + 0x10 : 0x1000;
  }

  /** Address of `length` bytes that lie together, `offset` bytes into all RAM or, where the hole cuts them, behind it. */
  at(offset: number, length = 1): number {
    return offset + length <= this.#lowBytes ? offset : Math.max(offset, this.#lowBytes) + this.#holeBytes;
  }

  /** Runs what the guest's side does, which is neither counted nor refused. */
  asGuest(action: () => void): void {
    const { accesses, changeOneIn, writable } = this;
    this.changeOneIn = 0;
    this.writable = undefined;
    action();
    this.accesses = accesses;
    this.changeOneIn = changeOneIn;
    this.writable = writable;
  }

  override slice(gpa: number, length: number): Uint8Array {
    this.#count();
    return super.slice(gpa, length);
  }
  override readU8(gpa: number): number {
    const value = super.readU8(gpa);
    this.#wasRead(gpa, 1);
    return value;
  }
  override readU16(gpa: number): number {
    const value = super.readU16(gpa);
    this.#wasRead(gpa, 2);
    return value;
  }
  override readU32(gpa: number): number {
    const value = super.readU32(gpa);
    this.#wasRead(gpa, 4);
    return value;
  }
  override readU64(gpa: number): bigint {
    const value = super.readU64(gpa);
    this.#wasRead(gpa, 8);
    return value;
  }
  override loadU16(gpa: number): number {
    const value = super.loadU16(gpa);
    this.#wasRead(gpa, 2);
    return value;
  }
  override writeU8(gpa: number, value: number): void {
    this.#willWrite(gpa, 1);
    super.writeU8(gpa, value);
  }
  override writeU16(gpa: number, value: number): void {
    this.#willWrite(gpa, 2);
    super.writeU16(gpa, value);
  }
  override writeU32(gpa: number, value: number): void {
    this.#willWrite(gpa, 4);
    super.writeU32(gpa, value);
  }
  override writeU64(gpa: number, value: bigint): void {
    this.#willWrite(gpa, 8);
    super.writeU64(gpa, value);
  }
  override storeU16(gpa: number, value: number): void {
    this.#willWrite(gpa, 2);
    super.storeU16(gpa, value);
  }

  #count(): void {
    if (++this.accesses > ENDLESS) throw new Error("The device does not come to an end");
  }

  #wasRead(gpa: number, length: number): void {
    this.#count();
    if (this.changeOneIn === 0 || !this.#random.oneIn(this.changeOneIn)) return;
    super.writeU8(gpa + this.#random.below(length), this.#random.value());
  }

  #willWrite(gpa: number, length: number): void {
    this.#count();
    const ranges = this.writable;
    if (ranges === undefined) return;
    if (ranges.some((range) => gpa >= range.gpa && gpa + length <= range.gpa + range.length)) return;
    throw new Error(`The device writes ${String(length)} bytes at 0x${gpa.toString(16)}, where it must not`);
  }
}
