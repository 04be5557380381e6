// Which pages of guest RAM the monitor itself has written, for those who follow what changes: KVM's log knows only
// what the guest writes. A bit a page, in memory that all threads of a VM see; it costs nothing until somebody watches.
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import { PAGE_SIZE } from "./layout.js";

const BITS = 32;
const WORD_BYTES = 4;

export class WrittenPages {
  readonly address: number;
  readonly #bytes: number;
  #view: Int32Array | undefined;

  private constructor(address: number, ramBytes: number) {
    this.address = address;
    this.#bytes = bytesFor(ramBytes);
  }

  static map(ramBytes: number): WrittenPages {
    return new WrittenPages(mmapAnonymous(bytesFor(ramBytes)), ramBytes);
  }

  /** A further thread's view of what `map` made. */
  static attach(address: number, ramBytes: number): WrittenPages {
    return new WrittenPages(address, ramBytes);
  }

  unmap(): void {
    munmap(this.address, this.#bytes);
  }

  /** The last word says whether somebody watches. */
  get isWatched(): boolean {
    const words = this.#words;
    return Atomics.load(words, words.length - 1) !== 0;
  }

  set isWatched(value: boolean) {
    const words = this.#words;
    Atomics.store(words, words.length - 1, value ? 1 : 0);
  }

  /** `offset`: in RAM as one piece. After the write: whoever takes the mark then finds what was written. */
  mark(offset: number, length: number): void {
    const words = this.#words;
    const last = Math.floor((offset + length - 1) / PAGE_SIZE);
    for (let page = Math.floor(offset / PAGE_SIZE); page <= last; page++) {
      Atomics.or(words, Math.floor(page / BITS), 1 << (page % BITS));
    }
  }

  /** Moves all marks to `pages`, which has a bit for each. */
  moveTo(pages: Uint32Array): void {
    const words = this.#words;
    for (let index = 0; index < pages.length; index++) {
      if (words[index] === 0) continue;
      pages[index] = (pages[index] ?? 0) | Atomics.exchange(words, index, 0);
    }
  }

  get #words(): Int32Array {
    // SAFETY: as many bytes as are mapped; the VM unmaps them after every thread has let go.
    return (this.#view ??= new Int32Array(viewMemory(this.address, this.#bytes)));
  }
}

function bytesFor(ramBytes: number): number {
  return pageWords(ramBytes) * WORD_BYTES + PAGE_SIZE;
}

/** Words of a bit for each page of so many bytes. */
export function pageWords(ramBytes: number): number {
  return Math.ceil(ramBytes / PAGE_SIZE / BITS);
}

/** How many have their bit. */
export function countPages(pages: Uint32Array): number {
  let count = 0;
  for (let bits of pages) for (; bits !== 0; bits &= bits - 1) count++;
  return count;
}
