// The balloon's backend over guest memory that this process has mapped: madvise(2).
import { getSystemErrorName } from "node:util";
import type { GuestPages } from "../../../devices/virtio/balloon/backend.js";
import { MADV_DONTNEED, madviseRaw } from "../../sys/memory.js";
import type { HostAddresses } from "./host-vectors.js";

export class MappedGuestPages implements GuestPages {
  readonly #memory: HostAddresses;

  constructor(memory: HostAddresses) {
    this.#memory = memory;
  }

  release(gpa: number, length: number): number {
    // SAFETY: hostAddressOf has checked that all bytes are guest RAM. They read 0 afterwards, or
    // what the file says where RAM is a private mapping of one; KVM drops them from its tables.
    return madviseRaw(this.#memory.hostAddressOf(gpa, length), length, MADV_DONTNEED);
  }

  explain(error: number): string {
    return getSystemErrorName(-error);
  }
}
