// What makes a guest another than all others of its snapshot.
import { randomFillSync } from "node:crypto";
import { SEED_BYTES, type RestoreBlock } from "../../devices/pseudo/restore-block.js";

/** A new generation, the host's time, and a seed for the guest's random numbers. */
export function freshIdentity(): Pick<RestoreBlock, "generation" | "wallClock" | "seed"> {
  const random = randomFillSync(new Uint8Array(4 + SEED_BYTES));
  return {
    generation: new DataView(random.buffer).getUint32(0) || 1,
    wallClock: BigInt(Date.now()) * 1_000_000n,
    seed: random.subarray(4),
  };
}
