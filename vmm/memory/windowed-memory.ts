// Guest RAM in one or two regions, read and written through views of limited length: a region is
// covered by windows, each made when something in it is first touched and kept from then on, because
// making a view can cost a garbage collection. Neighbouring windows overlap, so that every number lies
// in one of them whole; a longer piece over the end of a window gets a view of its own.
import type { GuestMemory } from "../../devices/contracts.js";
import { GuestMemoryError } from "../errors.js";

/** Where a contiguous piece of guest RAM lies in the guest; `bytes`. */
export interface RamRange {
  readonly gpa: number;
  readonly size: number;
}

export interface WindowOptions {
  /** `bytes` of the longest view. */
  readonly viewBytes: number;
  /** `bytes` that a window shares with the next one: even, and no less than the 16 of the longest read. */
  readonly overlapBytes: number;
  /** `bytes` from address 0 that the first view holds until more of the first region is wanted. */
  readonly firstViewBytes?: number;
}

/** All RAM as one piece, without the hole between the regions: a view of `length` bytes from `offset` on. */
export type RamView = (offset: number, length: number) => Uint8Array;

interface Window {
  readonly gpa: number;
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly halves: Uint16Array;
  readonly data: DataView;
}

interface Region extends RamRange {
  /** Of its first byte, in all RAM. */
  readonly offset: number;
  readonly windows: (Window | undefined)[];
}

export class WindowedMemory implements GuestMemory {
  readonly size: number;
  readonly #view: RamView;
  readonly #stride: number;
  readonly #viewBytes: number;
  readonly #low: Region;
  /** Empty if there is only one. */
  readonly #high: Region;
  /** The window at address 0, tried before all others. */
  #first: Window;

  /** `ranges`: one from address 0 on, and perhaps one more above it. */
  constructor(
    ranges: readonly RamRange[],
    view: RamView,
    { viewBytes, overlapBytes, firstViewBytes = viewBytes }: WindowOptions,
  ) {
    const [low, high = { gpa: Infinity, size: 0 }] = ranges;
    if (low === undefined || low.size === 0) throw new GuestMemoryError("Guest memory of 0 bytes is empty");
    this.size = low.size + high.size;
    this.#view = view;
    this.#viewBytes = viewBytes;
    this.#stride = viewBytes - overlapBytes;
    const region = ({ gpa, size }: RamRange, offset: number): Region => {
      const count = Math.max(1, Math.ceil((size - overlapBytes) / this.#stride));
      return { gpa, size, offset, windows: new Array<Window | undefined>(count).fill(undefined) };
    };
    this.#low = region(low, 0);
    this.#high = region(high, low.size);
    this.#first = this.#makeWindow(this.#low, 0, Math.min(firstViewBytes, viewBytes, low.size));
  }

  contains(gpa: number, length: number): boolean {
    const { gpa: start, size } = gpa < this.#high.gpa ? this.#low : this.#high;
    return gpa >= start && length >= 0 && gpa - start + length <= size;
  }

  slice(gpa: number, length: number): Uint8Array {
    const first = this.#first;
    if (gpa >= 0 && length >= 0 && gpa + length <= first.size) return first.bytes.subarray(gpa, gpa + length);
    const region = this.#region(gpa, length);
    const window = this.#windowIn(region, gpa);
    const start = gpa - window.gpa;
    if (start + length <= window.size) return window.bytes.subarray(start, start + length);
    return this.#view(region.offset + gpa - region.gpa, length);
  }

  readU8(gpa: number): number {
    const { data, gpa: base } = this.#window(gpa, 1);
    return data.getUint8(gpa - base);
  }

  readU16(gpa: number): number {
    const { data, gpa: base } = this.#window(gpa, 2);
    return data.getUint16(gpa - base, true);
  }

  readU32(gpa: number): number {
    const { data, gpa: base } = this.#window(gpa, 4);
    return data.getUint32(gpa - base, true);
  }

  readU64(gpa: number): bigint {
    const { data, gpa: base } = this.#window(gpa, 8);
    return data.getBigUint64(gpa - base, true);
  }

  read4U32(gpa: number, into: Uint32Array): void {
    const { data, gpa: base } = this.#window(gpa, 16);
    const at = gpa - base;
    into[0] = data.getUint32(at, true);
    into[1] = data.getUint32(at + 4, true);
    into[2] = data.getUint32(at + 8, true);
    into[3] = data.getUint32(at + 12, true);
  }

  writeU8(gpa: number, value: number): void {
    const { data, gpa: base } = this.#window(gpa, 1);
    data.setUint8(gpa - base, value);
  }

  writeU16(gpa: number, value: number): void {
    const { data, gpa: base } = this.#window(gpa, 2);
    data.setUint16(gpa - base, value, true);
  }

  writeU32(gpa: number, value: number): void {
    const { data, gpa: base } = this.#window(gpa, 4);
    data.setUint32(gpa - base, value, true);
  }

  writeU64(gpa: number, value: bigint): void {
    const { data, gpa: base } = this.#window(gpa, 8);
    data.setBigUint64(gpa - base, value, true);
  }

  orU16(gpa: number, bits: number): void {
    const { halves, gpa: base } = this.#aligned(gpa);
    Atomics.or(halves, (gpa - base) / 2, bits);
  }

  loadU16(gpa: number): number {
    const { halves, gpa: base } = this.#aligned(gpa);
    return Atomics.load(halves, (gpa - base) / 2);
  }

  storeU16(gpa: number, value: number): void {
    const { halves, gpa: base } = this.#aligned(gpa);
    Atomics.store(halves, (gpa - base) / 2, value);
  }

  #aligned(gpa: number): Window {
    if (gpa % 2 !== 0)
      throw new GuestMemoryError(`An atomic access at 0x${gpa.toString(16)} is not aligned to 2 bytes`);
    return this.#window(gpa, 2);
  }

  /** The window that holds a number of `length` bytes. */
  #window(gpa: number, length: number): Window {
    // One comparison chain for the common case; NaN and negative values fail it.
    const first = this.#first;
    if (gpa >= 0 && gpa + length <= first.size) return first;
    return this.#windowIn(this.#region(gpa, length), gpa);
  }

  /** The region that holds all of this. */
  #region(gpa: number, length: number): Region {
    const region = gpa < this.#high.gpa ? this.#low : this.#high;
    if (gpa >= region.gpa && length >= 0 && gpa - region.gpa + length <= region.size) return region;
    throw this.outside(gpa, length);
  }

  /** The last window that begins at or before `gpa`, which lies in the region. */
  #windowIn(region: Region, gpa: number): Window {
    const { windows } = region;
    const index = Math.min(Math.floor((gpa - region.gpa) / this.#stride), windows.length - 1);
    return (windows[index] ??= this.#open(region, index));
  }

  #open(region: Region, index: number): Window {
    const start = index * this.#stride;
    const window = this.#makeWindow(region, start, Math.min(this.#viewBytes, region.size - start));
    if (window.gpa === 0) this.#first = window;
    return window;
  }

  #makeWindow(region: Region, start: number, size: number): Window {
    const bytes = this.#view(region.offset + start, size);
    const { buffer, byteOffset } = bytes;
    return {
      gpa: region.gpa + start,
      size,
      bytes,
      // Not by a shift, which would make nothing of 4 GiB.
      halves: new Uint16Array(buffer, byteOffset, Math.floor(size / 2)),
      data: new DataView(buffer, byteOffset, size),
    };
  }

  protected outside(gpa: number, length: number): GuestMemoryError {
    return new GuestMemoryError(
      `${String(length)} bytes at 0x${gpa.toString(16)} are outside the guest's ${String(this.size)} bytes of RAM`,
    );
  }
}
