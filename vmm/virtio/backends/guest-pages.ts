// The balloon's backend over guest memory that this process has mapped: madvise(2).
import { getSystemErrorName } from "node:util";
import type { GuestMemory } from "../../../devices/contracts.js";
import type { GuestPages } from "../../../devices/virtio/balloon/backend.js";
import { MADV_DONTNEED, MADV_REMOVE, madviseRaw } from "../../sys/memory.js";
import type { HostAddresses } from "./host-vectors.js";

interface Pages extends HostAddresses, Pick<GuestMemory, "isWatched" | "noteWritten"> {
  /** Other processes have the memory, too. */
  readonly sharedFd?: number | undefined;
  /** `bytes` of what the host can give back at a time, if not of a page. */
  readonly hugePageBytes?: number | undefined;
}

export class MappedGuestPages implements GuestPages {
  readonly #memory: Pages;
  readonly #advice: number;

  constructor(memory: Pages) {
    this.#memory = memory;
    this.#advice = memory.sharedFd === undefined ? MADV_DONTNEED : MADV_REMOVE;
  }

  release(gpa: number, length: number): number {
    // SAFETY: hostAddressOf has checked that all bytes are guest RAM. They read 0 afterwards, or
    // what the file says where RAM is a private mapping of one; KVM drops them from its tables.
    const hva = this.#memory.hostAddressOf(gpa, length);
    const unit = this.#memory.hugePageBytes ?? 1;
    // What of a larger page is not released keeps all of it.
    const start = Math.ceil(hva / unit) * unit;
    const end = Math.floor((hva + length) / unit) * unit;
    if (end <= start) return 0;
    const error = madviseRaw(start, end - start, this.#advice);
    if (this.#memory.isWatched === true) this.#memory.noteWritten?.(gpa, length);
    return error;
  }

  explain(error: number): string {
    return getSystemErrorName(-error);
  }
}
