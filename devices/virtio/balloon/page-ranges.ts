// Single pages to ranges: a driver names neighbours one after the other, up or down, and one
// call to the host gives them all back.
import type { GuestMemory } from "../../contracts.js";
import type { GuestPages } from "./backend.js";
import { BALLOON_PAGE_SIZE } from "./constants.js";

/** Numbers that only grow. */
export interface ReleaseCounters {
  /** `bytes` */
  releasedBytes: number;
  /** Pages that are not RAM. */
  badPages: number;
  /** Calls that the host could not carry out. */
  hostErrors: number;
}

export class PageRanges {
  readonly #memory: GuestMemory;
  readonly #pages: GuestPages;
  readonly #counters: ReleaseCounters;
  readonly #onError: (error: number) => void;
  /** Page numbers gathered: from `#first` on, `#count` of them. */
  #first = 0;
  #count = 0;

  constructor(memory: GuestMemory, pages: GuestPages, counters: ReleaseCounters, onError: (error: number) => void) {
    this.#memory = memory;
    this.#pages = pages;
    this.#counters = counters;
    this.#onError = onError;
  }

  /** One page by its number, which may be anything. */
  add(pfn: number): void {
    if (!this.#memory.contains(pfn * BALLOON_PAGE_SIZE, BALLOON_PAGE_SIZE)) {
      this.#counters.badPages++;
    } else if (this.#count > 0 && pfn === this.#first + this.#count) {
      this.#count++;
    } else if (this.#count > 0 && pfn === this.#first - 1) {
      this.#first--;
      this.#count++;
    } else {
      this.flush();
      this.#first = pfn;
      this.#count = 1;
    }
  }

  /** Gives back what has been gathered. */
  flush(): void {
    if (this.#count === 0) return;
    this.release(this.#first * BALLOON_PAGE_SIZE, this.#count * BALLOON_PAGE_SIZE);
    this.#count = 0;
  }

  /** Whole pages that are known to be RAM, as one piece. */
  release(gpa: number, length: number): void {
    const error = this.#pages.release(gpa, length);
    if (error === 0) {
      this.#counters.releasedBytes += length;
    } else {
      this.#counters.hostErrors++;
      this.#onError(error);
    }
  }
}
