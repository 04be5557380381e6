// What the memory of a saved VM is made of: RAM, and behind it the pages of the command's channel. In one file, or in
// several that lie one over the other, each with the pages that have changed since the one below.
import { preadInto } from "../sys/files.js";
import { mmapPrivateFileAt } from "../sys/memory.js";
import { CommandPages } from "./command-pages.js";
import { MappedGuestMemory } from "./guest-memory.js";
import { PAGE_SIZE } from "./layout.js";
import { copyShared } from "./shared-copy.js";

export interface SavedMemory {
  /** RAM of `size` bytes for one VM, whose it is from here on. `isShared`: other processes can have it, too. */
  ram(size: number, isShared?: boolean): MappedGuestMemory;
  /** The channel's pages, which lie behind RAM of `size` bytes. */
  channel(size: number): CommandPages;
  /** Files that pages are mapped from: one that a VM does not own is as in one of them, or zero. */
  readonly files: readonly number[];
}

/** A file over those below it. */
export interface MemoryLayer {
  readonly fd: number;
  /** A bit for each page that it has; the others are those below. */
  readonly pages: Uint32Array;
}

interface Run {
  readonly fd: number;
  readonly first: number;
  readonly count: number;
}

/** Each mapping costs the host's kernel memory and time, and a process may have 65,530: shorter runs are copied. */
const MAX_MAPPED_RUNS = 256;

export class FileMemory implements SavedMemory {
  readonly files: readonly number[];
  readonly #base: number;
  readonly #mapped: readonly Run[];
  readonly #copied: readonly Run[];

  /** `base` has every page; layers from the lowest to the topmost. */
  constructor(base: number, layers: readonly MemoryLayer[] = []) {
    this.#base = base;
    this.files = [base, ...layers.map(({ fd }) => fd)];
    const runs = topmostRuns(layers).sort((a, b) => b.count - a.count);
    this.#mapped = runs.slice(0, MAX_MAPPED_RUNS);
    this.#copied = runs.slice(MAX_MAPPED_RUNS);
  }

  ram(size: number, isShared = false): MappedGuestMemory {
    if (isShared) return this.#copy(size);
    const memory = MappedGuestMemory.mapFile(this.#base, size);
    try {
      this.#lay(memory.hostAddress, 0, size / PAGE_SIZE);
    } catch (error) {
      memory.unmap();
      throw error;
    }
    return memory;
  }

  channel(size: number): CommandPages {
    const pages = CommandPages.mapFile(this.#base, size);
    try {
      this.#lay(pages.region.hva, size / PAGE_SIZE, pages.region.size / PAGE_SIZE);
    } catch (error) {
      pages.unmap();
      throw error;
    }
    return pages;
  }

  #copy(size: number): MappedGuestMemory {
    const runs = [...this.#mapped, ...this.#copied].map(({ fd, first, count }) => ({
      fd,
      start: first * PAGE_SIZE,
      end: (first + count) * PAGE_SIZE,
    }));
    return copyShared(size, [{ fd: this.#base, start: 0, end: size }, ...runs]);
  }

  /** Lays what the layers have over the memory at `address`, which begins with page `from`. */
  #lay(address: number, from: number, count: number): void {
    const within = (
      runs: readonly Run[],
      lay: (fd: number, at: number, bytes: number, offset: number) => void,
    ): void => {
      for (const run of runs) {
        const first = Math.max(run.first, from);
        const end = Math.min(run.first + run.count, from + count);
        if (first >= end) continue;
        lay(run.fd, address + (first - from) * PAGE_SIZE, (end - first) * PAGE_SIZE, first * PAGE_SIZE);
      }
    };
    within(this.#mapped, (fd, at, bytes, offset) => {
      mmapPrivateFileAt(at, bytes, fd, offset);
    });
    within(this.#copied, (fd, at, bytes, offset) => {
      for (let done = 0; done < bytes;) {
        // SAFETY: within the memory that was mapped by the caller. The file's length was checked.
        const read = preadInto(fd, at + done, bytes - done, offset + done);
        if (read === 0) throw new Error("A memory file ends before its end");
        done += read;
      }
    });
  }
}

export function hasPage(pages: Uint32Array, page: number): boolean {
  return (((pages[page >>> 5] ?? 0) >>> (page & 31)) & 1) !== 0;
}

/** For each page that any layer has, the topmost that has it; neighbours in one layer are a run. */
function topmostRuns(layers: readonly MemoryLayer[]): Run[] {
  const runs: Run[] = [];
  const words = Math.max(0, ...layers.map(({ pages }) => pages.length));
  const topDown = layers.slice().reverse();
  let current: { fd: number; first: number; count: number } | undefined;
  for (let word = 0; word < words; word++) {
    if (topDown.every(({ pages }) => (pages[word] ?? 0) === 0)) {
      current = undefined;
      continue;
    }
    for (let page = word * 32; page < word * 32 + 32; page++) {
      const fd = topDown.find(({ pages }) => hasPage(pages, page))?.fd;
      if (fd === undefined) current = undefined;
      else if (current?.fd === fd) current.count++;
      else runs.push((current = { fd, first: page, count: 1 }));
    }
  }
  return runs;
}

/** Memory that has been filled already, for one VM. */
export class FilledMemory implements SavedMemory {
  readonly files = [];
  readonly #memory: MappedGuestMemory;
  readonly #channel: CommandPages | undefined;
  /** What no VM has taken. */
  readonly #own = new Set<{ unmap(): void }>();

  constructor(memory: MappedGuestMemory, channel: CommandPages | undefined) {
    this.#own.add(memory);
    if (channel !== undefined) this.#own.add(channel);
    this.#memory = memory;
    this.#channel = channel;
  }

  ram(): MappedGuestMemory {
    this.#own.delete(this.#memory);
    return this.#memory;
  }

  channel(): CommandPages {
    if (this.#channel === undefined) throw new Error("No channel was filled");
    this.#own.delete(this.#channel);
    return this.#channel;
  }

  /** Gives back what no VM has taken. */
  close(): void {
    for (const part of this.#own) part.unmap();
    this.#own.clear();
  }
}
