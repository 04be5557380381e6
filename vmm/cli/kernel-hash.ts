// The hash of a report: of the kernel that was booted, whatever becomes of its file while the guest runs.
import { createHash } from "node:crypto";
import { nowMs } from "../host/clock.js";

export class KernelHash {
  #sha256 = "";
  #ms = 0;

  get sha256(): string {
    return this.#sha256;
  }

  /** What it took: a boot without a report does not spend it. */
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
