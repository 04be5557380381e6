// Guest RAM in one mapping, which other processes can share if they must: what fits below the MMIO hole, the rest from 4 GiB.
// A boot writes through a small first view, and the kernel is read by address: V8 counts a view's
// size as its own heap's pressure, and collecting before the first KVM_RUN costs milliseconds.
// Addresses are host-contiguous inside a region.
import { closeDescriptor } from "../sys/descriptors.js";
import {
  mmapAnonymous,
  mmapFile,
  mmapHugePages,
  mmapPrivateFile,
  munmap,
  preferHugePages,
  viewMemory,
} from "../sys/memory.js";
import { HIGH_MEMORY_GPA, MMIO_HOLE_GPA, PAGE_SIZE } from "./layout.js";
import { WindowedMemory, type RamRange } from "./windowed-memory.js";
import type { WrittenPages } from "./written-pages.js";

/** Node 20 makes no longer ones. */
const MAX_VIEW_BYTES = 2 ** 32;
/** All tables of a boot lie in here. */
const FIRST_VIEW_BYTES = 2 ** 20;
const HUGE_PAGE_BYTES = 2 ** 21;
/** Of a restored guest: V8 would collect its heap for every VM that one large view is made for. */
const SMALL_VIEW_BYTES = 2 ** 21;
const MAX_SMALL_VIEWS = 1024;

/** A contiguous piece of guest RAM. */
export interface MemoryRegion extends RamRange {
  /** Host virtual address of its first byte. */
  readonly hva: number;
}

/** Where RAM lies for a given size; at most two regions. */
export function memoryRegions(hostAddress: number, size: number): MemoryRegion[] {
  const low = Math.min(size, MMIO_HOLE_GPA);
  const regions = [{ gpa: 0, size: low, hva: hostAddress }];
  if (size > low) regions.push({ gpa: HIGH_MEMORY_GPA, size: size - low, hva: hostAddress + low });
  return regions;
}

/** A VM that boots runs long, and its rings are everywhere: one view of it all is fastest in the end. */
export type ViewSize = "large" | "small";

function viewBytes(size: number, views: ViewSize): number {
  if (views === "large") return MAX_VIEW_BYTES;
  const least = 2 ** Math.ceil(Math.log2(size / MAX_SMALL_VIEWS));
  return Math.min(MAX_VIEW_BYTES, Math.max(SMALL_VIEW_BYTES, least));
}

/** GuestMemory over a mapping of this process; several threads may attach to the same one. */
export class MappedGuestMemory extends WindowedMemory {
  readonly hostAddress: number;
  readonly regions: readonly MemoryRegion[];
  readonly #lowRegion: MemoryRegion;
  readonly #highRegion: MemoryRegion;
  /** What another process maps to have this memory, too; undefined if none can. */
  readonly sharedFd: number | undefined;
  /** `bytes` of a page that the host keeps for this, if it is made of such. */
  hugePageBytes: number | undefined;
  #written: WrittenPages | undefined;

  private constructor(hostAddress: number, size: number, views: ViewSize, sharedFd?: number) {
    const regions = memoryRegions(hostAddress, size);
    // SAFETY: the mapping lives until unmap(), which the VM calls after every thread has let go.
    super(regions, (offset, length) => new Uint8Array(viewMemory(hostAddress + offset, length)), {
      viewBytes: viewBytes(size, views),
      overlapBytes: PAGE_SIZE,
      firstViewBytes: FIRST_VIEW_BYTES,
    });
    const nothing = { gpa: HIGH_MEMORY_GPA, size: 0, hva: 0 };
    this.hostAddress = hostAddress;
    this.regions = regions;
    this.sharedFd = sharedFd;
    this.#lowRegion = regions[0] ?? nothing;
    this.#highRegion = regions[1] ?? nothing;
  }

  /** Maps `size` bytes of zeroed memory; pages take host memory once they are touched. */
  static map(size: number): MappedGuestMemory {
    return new MappedGuestMemory(mmapAnonymous(size), size, "large");
  }

  /** Asks the host's kernel for huge pages wherever it has some. */
  preferHugePages(): void {
    preferHugePages(this.hostAddress, this.size);
  }

  /** The same in pages of 2 MiB that the host keeps for this. Throws SystemCallError where there are too few. */
  static mapHugePages(size: number): MappedGuestMemory {
    const memory = new MappedGuestMemory(mmapHugePages(size), size, "large");
    memory.hugePageBytes = HUGE_PAGE_BYTES;
    return memory;
  }

  /** The same behind a descriptor of `sharedMemory`, as large, which is closed with it. */
  static mapShared(fd: number, size: number, views: ViewSize = "large"): MappedGuestMemory {
    return new MappedGuestMemory(mmapFile(fd, size), size, views, fd);
  }

  /** `size` bytes whose content is that of the file from `offset` on; the file never changes by them. */
  static mapFile(fd: number, size: number, offset = 0): MappedGuestMemory {
    return new MappedGuestMemory(mmapPrivateFile(fd, size, offset), size, "small");
  }

  /** A further thread's view of memory that `map` made. */
  static attach(
    hostAddress: number,
    size: number,
    written?: WrittenPages,
    views: ViewSize = "large",
  ): MappedGuestMemory {
    const memory = new MappedGuestMemory(hostAddress, size, views);
    memory.#written = written;
    return memory;
  }

  /** Has what is written noted there, for as long as it is watched. */
  noteIn(written: WrittenPages): void {
    this.#written = written;
  }

  get isWatched(): boolean {
    return this.#written?.isWatched === true;
  }

  noteWritten(gpa: number, length: number): void {
    if (length > 0) this.#written?.mark(this.hostAddressOf(gpa, length) - this.hostAddress, length);
  }

  /** Gives the memory back; any later access through this or an attached object crashes. */
  unmap(): void {
    munmap(this.hostAddress, this.size);
    if (this.sharedFd !== undefined) closeDescriptor(this.sharedFd);
  }

  /**
   * Host address of `length` bytes at `gpa`, for system calls that fill guest memory directly.
   * Short enough to be inlined: called out of line, every address would be an object on the heap.
   */
  hostAddressOf(gpa: number, length: number): number {
    const region = gpa < HIGH_MEMORY_GPA ? this.#lowRegion : this.#highRegion;
    if (gpa >= region.gpa && length >= 0 && gpa + length <= region.gpa + region.size)
      return region.hva + gpa - region.gpa;
    throw this.outside(gpa, length);
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
}
