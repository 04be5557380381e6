// Guest RAM that another processor of the guest writes to while the device reads it. Counts
// accesses, refuses whatever lies outside, and knows where the device may write. It is the monitor's
// own memory over an array: in one piece, or with what a large guest has, only smaller.
import { HIGH_MEMORY_GPA, MMIO_HOLE_GPA, PAGE_SIZE } from "../../vmm/memory/layout.js";
import { WindowedMemory, type RamRange, type RamView, type WindowOptions } from "../../vmm/memory/windowed-memory.js";
import { MADV_DONTNEED, madviseRaw, mmapAnonymous, viewMemory } from "../../vmm/sys/memory.js";
import type { Random } from "./random.js";

/**
 * "split": a hole between two regions, and views so short that most things lie in several. "large": the addresses of a guest with
 * more than fits below the hole for devices, in a mapping of the operating system, of which a driver has the end of the lower region
 * and the upper one, whose size is odd.
 */
export type RamLayout = "flat" | "split" | "large";
export const RAM_LAYOUTS: readonly RamLayout[] = ["flat", "split", "large"];

const HOLE_BYTES = 0x2000;
/** As small views of a restored guest. */
const LARGE_VIEWS = { viewBytes: 2 ** 21, overlapBytes: PAGE_SIZE, firstViewBytes: 2 ** 20 };
/** Behind what a driver has: RAM that no driver has asked for. */
const ODD_BYTES = 0x1234;
const MAX_HEAP_BYTES = 2 ** 20;
const SHORT_VIEWS = { viewBytes: 0x210, overlapBytes: 0x10, firstViewBytes: 0x20 };

/** More than any call may take: a loop that the driver has tied. */
const ENDLESS = 1_000_000;

export interface Range {
  readonly gpa: number;
  readonly length: number;
}

const LARGE_BYTES = MMIO_HOLE_GPA + MAX_HEAP_BYTES + 4 * PAGE_SIZE;

/** Where "large" memory is mapped, once for all cases. */
let largeAddress: number | undefined;

function largeView(offset: number, length: number): Uint8Array {
  largeAddress ??= mmapAnonymous(LARGE_BYTES);
  // SAFETY: WindowedMemory asks for ranges of its regions only, which are shorter than the mapping, and that stays for good.
  return new Uint8Array(viewMemory(largeAddress + offset, length));
}

/** All of it reads 0 again, whatever was written where. */
function clearLarge(): void {
  if (largeAddress === undefined) return;
  // SAFETY: anonymous memory of ours, all of it; no view of it is used any more but by the case that begins.
  if (madviseRaw(largeAddress, LARGE_BYTES, MADV_DONTNEED) !== 0) throw new Error("madvise(2) fails");
}

interface Layout {
  readonly ranges: readonly RamRange[];
  readonly view: RamView;
  readonly options: WindowOptions;
}

function layoutOf(layout: RamLayout, size: number): Layout {
  const ram = layout === "large" ? new Uint8Array(0) : new Uint8Array(size);
  const view: RamView = (offset, length) => ram.subarray(offset, offset + length);
  const low = size / 4;
  switch (layout) {
    case "flat":
      return { ranges: [{ gpa: 0, size }], view, options: { viewBytes: 2 ** 32, overlapBytes: 0x1000 } };
    case "split": {
      const high = { gpa: low + HOLE_BYTES, size: size - low };
      return { ranges: [{ gpa: 0, size: low }, high], view, options: SHORT_VIEWS };
    }
    case "large": {
      const high = { gpa: HIGH_MEMORY_GPA, size: size - low + ODD_BYTES };
      clearLarge();
      return { ranges: [{ gpa: 0, size: MMIO_HOLE_GPA }, high], view: largeView, options: LARGE_VIEWS };
    }
  }
}

export class HostileMemory extends WindowedMemory {
  /** Behind the last byte of RAM. */
  readonly end: number;
  /** `bytes` that `at` counts through. */
  readonly heapSize: number;
  /** Where a driver has its rings and buffers. */
  readonly heapGpa: number;
  /** Reads and writes by the device since this was last set to 0. */
  accesses = 0;
  /** One read in this many is followed by a change of what was read; 0: none. */
  changeOneIn = 0;
  /** Called after each read of a descriptor with its address, as another processor of the guest that was waiting for that. */
  changeDescriptor: ((gpa: number) => void) | undefined;
  /** Where values may be written by the device; undefined: anywhere in RAM. */
  writable: readonly Range[] | undefined;
  readonly #random: Random;
  /** `bytes` of a driver's below the hole, and where they begin; and the rest. */
  readonly #lowBytes: number;
  readonly #lowGpa: number;
  readonly #highGpa: number;

  /** `size`: bytes that a driver has for its rings and buffers, at most 1 MiB. */
  constructor(size: number, random: Random, layout: RamLayout) {
    const { ranges, view, options } = layoutOf(layout, size);
    super(ranges, view, options);
    const [low, high] = ranges;
    this.#random = random;
    this.heapSize = size;
    this.#lowBytes = high === undefined ? size : size / 4;
    this.#lowGpa = layout === "large" ? MMIO_HOLE_GPA - size / 4 : 0;
    this.#highGpa = high?.gpa ?? 0;
    this.end = high === undefined ? (low?.size ?? 0) : high.gpa + high.size;
    this.heapGpa = layout === "flat" ? 0x1000 : this.#highGpa + 0x10;
  }

  /** Address of `length` bytes that lie together, `offset` bytes into all RAM or, where the hole cuts them, behind it. */
  at(offset: number, length = 1): number {
    if (offset + length <= this.#lowBytes) return this.#lowGpa + offset;
    return this.#highGpa + Math.max(offset, this.#lowBytes) - this.#lowBytes;
  }

  /** Runs what the guest's side does, which is neither counted nor refused. */
  asGuest(action: () => void): void {
    const { accesses, changeOneIn, changeDescriptor, writable } = this;
    this.changeOneIn = 0;
    this.changeDescriptor = undefined;
    this.writable = undefined;
    action();
    this.accesses = accesses;
    this.changeOneIn = changeOneIn;
    this.changeDescriptor = changeDescriptor;
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
  override read4U32(gpa: number, into: Uint32Array): void {
    super.read4U32(gpa, into);
    this.#count();
    const change = this.changeDescriptor;
    if (change !== undefined) this.asGuest(() => change(gpa));
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
  override orU16(gpa: number, bits: number): void {
    this.#willWrite(gpa, 2);
    super.orU16(gpa, bits);
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
