// Cases that broke something: the device itself, or a copy of it from which the named check had been
// taken out, to see that the fuzzers miss it. Every test run repeats them; add what a fuzzer prints.
// A seed means the same case only while its fuzzer draws the same numbers in the same order, over RAM that lies alike.
import type { RamLayout } from "./hostile-memory.js";

export interface CorpusEntry {
  readonly target: string;
  readonly seed: number;
  /** How RAM lay; "flat" unless said. */
  readonly layout?: RamLayout;
  /** What went wrong. */
  readonly what: string;
}

export const CORPUS: readonly CorpusEntry[] = [
  { target: "block", seed: 511742565, what: "the rate limiter waited for a remainder too small to move the clock" },
  {
    target: "transport",
    seed: 2734687895,
    what: "DRIVER_OK made a queue of 2^32 descriptors out of registers that were never checked",
  },
  { target: "transport", seed: 4138615034, what: "a queue was moved after its check, while it was ready" },
  { target: "transport", seed: 2292928795, what: "a ring outside RAM" },
  { target: "transport", seed: 1859298951, what: "a ring off its alignment" },
  { target: "queue", seed: 158821282, what: "an indirect table that names itself" },
  { target: "queue", seed: 1580013426, what: "a buffer outside RAM, and a descriptor outside its table" },
  { target: "queue", seed: 1080584713, what: "a chain without an end" },
  { target: "block", seed: 584668611, what: "an indirect table outside RAM" },
  { target: "block", seed: 2115918082, what: "a request that ends within a sector" },
  { target: "block", seed: 3409775318, what: "a request over the end of the disk" },
  { target: "block", seed: 3184121657, what: "a write to a read-only disk" },
  { target: "block", seed: 3469696795, what: "a reset while the rate limiter held the queue" },
  { target: "vsock", seed: 3988046935, what: "a connection that was gone took the next one with its ports along" },
];
