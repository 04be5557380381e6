// The report's hash of the kernel that was booted, even if its file changes while the guest runs.
import { createHash } from "node:crypto";
import { nowMs } from "../host/clock.js";

/** For the report. */
export interface HashedKernel {
  readonly sha256: string;
  /** What hashing has taken before the first KVM_RUN. */
  readonly ms: number;
}

export class KernelHash implements HashedKernel {
  #sha256 = "";
  #ms = 0;

  get sha256(): string {
    return this.#sha256;
  }

  /** How long hashing took: a boot without a report saves that. */
  get ms(): number {
    return this.#ms;
  }

  readonly read = (pieces: Iterable<Uint8Array>): void => {
    const started = nowMs();
    const hash = createHash("sha256");
    for (const piece of pieces) hash.update(piece);
    this.#sha256 = hash.digest("hex");
    this.#ms = nowMs() - started;
  };
}
