// The balloon's backend over guest memory that this process has mapped: madvise(2).
import { getSystemErrorName } from "node:util";
import type { GuestMemory } from "../../../devices/contracts.js";
import type { GuestPages } from "../../../devices/virtio/balloon/backend.js";
import { MADV_DONTNEED, madviseRaw } from "../../sys/memory.js";
import type { HostAddresses } from "./host-vectors.js";

export class MappedGuestPages implements GuestPages {
  readonly #memory: HostAddresses & Pick<GuestMemory, "isWatched" | "noteWritten">;

  constructor(memory: HostAddresses & Pick<GuestMemory, "isWatched" | "noteWritten">) {
    this.#memory = memory;
  }

  release(gpa: number, length: number): number {
    // SAFETY: hostAddressOf has checked that all bytes are guest RAM. They read 0 afterwards, or
    // what the file says where RAM is a private mapping of one; KVM drops them from its tables.
    const error = madviseRaw(this.#memory.hostAddressOf(gpa, length), length, MADV_DONTNEED);
    if (this.#memory.isWatched === true) this.#memory.noteWritten?.(gpa, length);
    return error;
  }

  explain(error: number): string {
    return getSystemErrorName(-error);
  }
}
