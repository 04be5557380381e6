// What makes a guest another than all others of its snapshot.
import { PROGRAM_RANDOM_BYTES, SEED_BYTES, type RestoreBlock } from "../../devices/pseudo/restore-block.js";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import type { Vm } from "../machine/vm.js";
import { randomBytes } from "../sys/random.js";
import type { RestoreOverrides } from "./overrides.js";

/** A new generation, the host's time, and a seed for the guest's random numbers. */
export function freshIdentity(): Pick<RestoreBlock, "generation" | "wallClock" | "seed" | "programRandom"> {
  const random = randomBytes(4 + SEED_BYTES + PROGRAM_RANDOM_BYTES);
  return {
    generation: new DataView(random.buffer).getUint32(0) || 1,
    wallClock: BigInt(Date.now()) * 1_000_000n,
    seed: random.subarray(4, 4 + SEED_BYTES),
    programRandom: random.subarray(4 + SEED_BYTES),
  };
}

/**
 * Tells a guest that goes on from a snapshot that it is another now, before its start: it gets fresh random numbers, the
 * right time and, if it is to have one, its name. Throws ConfigError for a name that nobody in the guest would hear.
 */
export function becomeAnother(vm: Vm, { hostName }: RestoreOverrides = {}): void {
  if (vm.tellIdentity({ ...freshIdentity(), hostName }) || hostName === undefined) return;
  throw new ConfigError([
    `Host name ${show(hostName)}: the saved guest has no init of vmlet's that would set it; ` +
      "one that was booted with a command and a command channel has",
  ]);
}
