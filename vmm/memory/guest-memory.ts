// Guest RAM in one anonymous mapping: what fits below the MMIO hole, the rest from 4 GiB.
// Views are long-lived because making one can cost a garbage collection; Node 20 caps a
// view at 4 GiB, hence windows. A boot writes through a small first one, and the kernel is read
// by address: V8 counts a view's size as its own heap's pressure, and collecting before the
// first KVM_RUN costs milliseconds. Addresses are host-contiguous inside a region.
import type { GuestMemory } from "../../devices/contracts.js";
import { GuestMemoryError } from "../errors.js";
import { mmapAnonymous, munmap, preferHugePages, viewMemory } from "../sys/memory.js";
import { HIGH_MEMORY_GPA, MMIO_HOLE_GPA } from "./layout.js";

const MAX_VIEW_BYTES = 2 ** 32;
/** All tables of a boot lie in here. */
const FIRST_VIEW_BYTES = 2 ** 20;
const HUGE_PAGE_BYTES = 2 ** 21;

/** A contiguous piece of guest RAM. */
export interface MemoryRegion {
  readonly gpa: number;
  /** `bytes` */
  readonly size: number;
  /** Host virtual address of its first byte. */
  readonly hva: number;
}

interface Window extends MemoryRegion {
  readonly bytes: Uint8Array;
  readonly halves: Uint16Array;
  readonly data: DataView;
}

/** Where RAM lies for a given size; at most two regions. */
export function memoryRegions(hostAddress: number, size: number): MemoryRegion[] {
  const low = Math.min(size, MMIO_HOLE_GPA);
  const regions = [{ gpa: 0, size: low, hva: hostAddress }];
  if (size > low) regions.push({ gpa: HIGH_MEMORY_GPA, size: size - low, hva: hostAddress + low });
  return regions;
}

function makeWindow(region: MemoryRegion, offset: number, length: number): Window {
  const hva = region.hva + offset;
  // SAFETY: the mapping lives until unmap(), which the VM calls after every thread has let go.
  const buffer = viewMemory(hva, length);
  return {
    gpa: region.gpa + offset,
    size: length,
    hva,
    bytes: new Uint8Array(buffer),
    halves: new Uint16Array(buffer, 0, length >>> 1),
    data: new DataView(buffer),
  };
}

/** GuestMemory over a mapping of this process; several threads may attach to the same one. */
export class MappedGuestMemory implements GuestMemory {
  readonly size: number;
  readonly hostAddress: number;
  readonly regions: readonly MemoryRegion[];
  readonly #lowRegion: MemoryRegion;
  readonly #highRegion: MemoryRegion;
  #low: Window;
  /** Made by the first access that the small first window does not hold. */
  #windows: readonly Window[] | undefined;

  private constructor(hostAddress: number, size: number) {
    this.hostAddress = hostAddress;
    this.size = size;
    this.regions = memoryRegions(hostAddress, size);
    const [low] = this.regions;
    if (low === undefined || low.size === 0) {
      throw new GuestMemoryError(`Guest memory of ${String(size)} bytes is empty`);
    }
    this.#low = makeWindow(low, 0, Math.min(FIRST_VIEW_BYTES, low.size));
    this.#lowRegion = low;
    this.#highRegion = this.regions[1] ?? { gpa: HIGH_MEMORY_GPA, size: 0, hva: 0 };
  }

  /** Maps `size` bytes of zeroed memory; pages take host memory once they are touched. */
  static map(size: number): MappedGuestMemory {
    return new MappedGuestMemory(mmapAnonymous(size), size);
  }

  /** A further thread's view of memory that `map` made. */
  static attach(hostAddress: number, size: number): MappedGuestMemory {
    return new MappedGuestMemory(hostAddress, size);
  }

  /** Gives the memory back; any later access through this or an attached object crashes. */
  unmap(): void {
    munmap(this.hostAddress, this.size);
  }

  contains(gpa: number, length: number): boolean {
    const low = this.#low;
    if (gpa >= 0 && length >= 0 && gpa + length <= low.size) return true;
    for (const region of this.regions) {
      if (gpa >= region.gpa && length >= 0 && gpa + length <= region.gpa + region.size) return true;
    }
    return false;
  }

  /**
   * Host address of `length` bytes at `gpa`, for system calls that fill guest memory directly.
   * Short enough to be inlined: called out of line, every address would be an object on the heap.
   */
  hostAddressOf(gpa: number, length: number): number {
    const region = gpa < HIGH_MEMORY_GPA ? this.#lowRegion : this.#highRegion;
    if (gpa >= region.gpa && length >= 0 && gpa + length <= region.gpa + region.size)
      return region.hva + gpa - region.gpa;
    throw this.#outside(gpa, length);
  }

  /**
   * The caller is about to fill all of this range: whole huge pages in it spare a page fault for
   * each 4 KiB, most of the time that reading a kernel takes. Only here: elsewhere they would
   * make a guest take more of the host's memory than it uses.
   */
  willFill(gpa: number, length: number): void {
    const hva = this.hostAddressOf(gpa, length);
    const start = Math.ceil(hva / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
    const end = Math.floor((hva + length) / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
    if (end > start) preferHugePages(start, end - start);
  }

  slice(gpa: number, length: number): Uint8Array {
    const window = this.#find(gpa, length);
    if (window !== undefined) {
      const start = gpa - window.gpa;
      return window.bytes.subarray(start, start + length);
    }
    // RAM, but over the seam of two windows: rare enough for a view of its own.
    return new Uint8Array(viewMemory(this.hostAddressOf(gpa, length), length));
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
    Atomics.or(halves, (gpa - base) >>> 1, bits);
  }

  loadU16(gpa: number): number {
    const { halves, gpa: base } = this.#aligned(gpa);
    return Atomics.load(halves, (gpa - base) >>> 1);
  }

  storeU16(gpa: number, value: number): void {
    const { halves, gpa: base } = this.#aligned(gpa);
    Atomics.store(halves, (gpa - base) >>> 1, value);
  }

  #aligned(gpa: number): Window {
    if (gpa % 2 !== 0)
      throw new GuestMemoryError(`An atomic access at 0x${gpa.toString(16)} is not aligned to 2 bytes`);
    return this.#window(gpa, 2);
  }

  /** Views of all RAM; the first takes the small one's place. */
  #makeWindows(): readonly Window[] {
    const windows = this.regions.flatMap((region) => {
      const count = Math.ceil(region.size / MAX_VIEW_BYTES);
      return Array.from({ length: count }, (_, i) => {
        const offset = i * MAX_VIEW_BYTES;
        return makeWindow(region, offset, Math.min(MAX_VIEW_BYTES, region.size - offset));
      });
    });
    this.#low = windows[0] ?? this.#low;
    return windows;
  }

  #find(gpa: number, length: number): Window | undefined {
    // One comparison chain for the common case; NaN and negative values fail it.
    const low = this.#low;
    if (gpa >= 0 && length >= 0 && gpa + length <= low.size) return low;
    for (const window of (this.#windows ??= this.#makeWindows())) {
      if (gpa >= window.gpa && length >= 0 && gpa + length <= window.gpa + window.size) return window;
    }
    return undefined;
  }

  #window(gpa: number, length: number): Window {
    const window = this.#find(gpa, length);
    if (window === undefined) throw this.#outside(gpa, length);
    return window;
  }

  #outside(gpa: number, length: number): GuestMemoryError {
    return new GuestMemoryError(
      `${String(length)} bytes at 0x${gpa.toString(16)} are outside the guest's ${String(this.size)} bytes of RAM`,
    );
  }
}
