// Who follows which pages of a VM's RAM change: KVM's log of what the guest writes, together with what the monitor
// itself has written. KVM keeps one log; each watch has its own view of it. Nothing is logged while there is none.
import type { VmFd } from "../kvm/vm-fd.js";
import type { MemoryRegion } from "../memory/guest-memory.js";
import type { WrittenPages } from "../memory/written-pages.js";
import { pageWords } from "../memory/written-pages.js";
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import { KVM_MEM_LOG_DIRTY_PAGES } from "../sys/kvm-abi.js";

/** What the log is made of. */
export interface WatchedMemory {
  readonly vm: Pick<VmFd, "setMemoryRegion" | "getDirtyLog">;
  /** RAM; each region in the slot of its index. */
  readonly memory: { readonly regions: readonly MemoryRegion[]; readonly size: number };
  readonly written: Pick<WrittenPages, "isWatched" | "moveTo">;
  /** Pages change by the guest and this process alone while it is on. */
  readonly follow: (isOn: boolean) => void;
}

/** One who follows; a bit a page, by its place in RAM as one piece. */
export interface PageWatch {
  /** All pages that may have changed since the watch began, or since `take`. */
  changed(): Uint32Array;
  /** The same, and begins anew. */
  take(): Uint32Array;
  close(): void;
}

const WORD_BYTES = 4;

export class PageWatches {
  readonly #watched: WatchedMemory;
  readonly #words: number;
  readonly #watches = new Set<{ pages: Uint32Array<ArrayBuffer> }>();
  /** KVM's answer, while there is a watch. */
  #answer: { readonly address: number; readonly words: Uint32Array } | undefined;

  constructor(watched: WatchedMemory) {
    this.#watched = watched;
    this.#words = pageWords(watched.memory.size);
  }

  /** What changes from here on is known. Throws KvmIoctlError where KVM has no log. */
  watch(): PageWatch {
    if (this.#watches.size === 0) this.#begin();
    const watch = { pages: new Uint32Array(this.#words) };
    // What others have not looked at yet is none of its business.
    this.#collect();
    this.#watches.add(watch);
    const check = (): void => {
      if (!this.#watches.has(watch)) throw new Error("A watch that is closed");
      this.#collect();
    };
    return {
      changed: () => {
        check();
        return watch.pages.slice();
      },
      take: () => {
        check();
        const { pages } = watch;
        watch.pages = new Uint32Array(this.#words);
        return pages;
      },
      close: () => {
        if (this.#watches.delete(watch) && this.#watches.size === 0) this.#end();
      },
    };
  }

  /** Before the VM goes. */
  close(): void {
    if (this.#watches.size === 0) return;
    this.#watches.clear();
    this.#end();
  }

  #begin(): void {
    const { memory, written } = this.#watched;
    const bytes = this.#words * WORD_BYTES;
    const address = mmapAnonymous(bytes);
    this.#watched.follow(true);
    try {
      // SAFETY: as many bytes as are mapped; no use of the view comes after #end.
      this.#answer = { address, words: new Uint32Array(viewMemory(address, bytes)) };
      written.isWatched = true;
      this.#log(true);
    } catch (error) {
      written.isWatched = false;
      this.#answer = undefined;
      munmap(address, bytes);
      this.#watched.follow(false);
      throw error;
    }
    // What was noted in an earlier watch's time.
    written.moveTo(new Uint32Array(pageWords(memory.size)));
  }

  #end(): void {
    this.#watched.written.isWatched = false;
    this.#log(false);
    this.#watched.follow(false);
    if (this.#answer !== undefined) munmap(this.#answer.address, this.#words * WORD_BYTES);
    this.#answer = undefined;
  }

  #log(isOn: boolean): void {
    const { vm, memory } = this.#watched;
    memory.regions.forEach((region, slot) => {
      vm.setMemoryRegion(slot, region, isOn ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    });
  }

  /** Adds what is new to every watch. */
  #collect(): void {
    const { vm, memory, written } = this.#watched;
    if (this.#answer === undefined) return;
    const { address, words } = this.#answer;
    let first = 0;
    memory.regions.forEach(({ size }, slot) => {
      // Regions are whole MiB: their pages fill whole words.
      vm.getDirtyLog(slot, address + first * WORD_BYTES);
      first += pageWords(size);
    });
    written.moveTo(words);
    for (const { pages } of this.#watches) {
      for (let index = 0; index < this.#words; index++) {
        const bits = words[index] ?? 0;
        if (bits !== 0) pages[index] = (pages[index] ?? 0) | bits;
      }
    }
  }
}
