// The balloon's backend over guest memory that this process has mapped: madvise(2).
import { getSystemErrorName } from "node:util";
import type { GuestMemory } from "../../../devices/contracts.js";
import type { GuestPages } from "../../../devices/virtio/balloon/backend.js";
import { MADV_DONTNEED, MADV_REMOVE, madviseRaw } from "../../sys/memory.js";
import type { HostAddresses } from "./host-vectors.js";

interface Pages extends HostAddresses, Pick<GuestMemory, "isWatched" | "noteWritten"> {
  /** Other processes have the memory, too. */
  readonly sharedFd?: number | undefined;
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
    const error = madviseRaw(this.#memory.hostAddressOf(gpa, length), length, this.#advice);
    if (this.#memory.isWatched === true) this.#memory.noteWritten?.(gpa, length);
    return error;
  }

  explain(error: number): string {
    return getSystemErrorName(-error);
  }
}
