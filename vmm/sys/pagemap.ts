// Which pages of this process have memory of their own: /proc/self/pagemap, 8 bytes a page.
// Documentation/admin-guide/mm/pagemap.rst.
import { readSync } from "node:fs";
import { withFile } from "../host/kept-files.js";

const PAGE_BYTES = 4096;
const ENTRY_BYTES = 8;
/** Entries read at a time. */
const BATCH = 32_768;

// Bits of the upper half of an entry.
const PRESENT = 1 << 31;
const SWAPPED = 1 << 30;
const FILE_OR_SHARED = 1 << 29;

export const PAGEMAP = "/proc/self/pagemap";

/**
 * For each page of a private mapping, nonzero if it is no longer what it was mapped from: zeroes, or a file. Undefined
 * where the host does not tell.
 */
export function ownPages(address: number, length: number): Uint8Array | undefined {
  const pages = Math.ceil(length / PAGE_BYTES);
  const own = new Uint8Array(pages);
  try {
    return withFile(PAGEMAP, (fd) => {
      const entries = new Uint32Array(2 * Math.min(pages, BATCH));
      for (let from = 0; from < pages; from += BATCH) {
        const count = Math.min(BATCH, pages - from);
        const bytes = readSync(fd, entries, 0, count * ENTRY_BYTES, (address / PAGE_BYTES + from) * ENTRY_BYTES);
        if (bytes !== count * ENTRY_BYTES) return undefined;
        for (let i = 0; i < count; i++) {
          const upper = entries[2 * i + 1] ?? 0;
          const isOwn = (upper & SWAPPED) !== 0 || ((upper & PRESENT) !== 0 && (upper & FILE_OR_SHARED) === 0);
          if (isOwn) own[from + i] = 1;
        }
      }
      return own;
    });
  } catch {
    return undefined;
  }
}
