// The fuzzers that draw numbers, with numbers that the input decides: the search then finds which draws lead further.
import { RAM_LAYOUTS } from "../hostile-memory.js";
import { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";
import type { ByteTarget } from "../coverage/byte-target.js";

/** Draws take bytes of the input from the front; behind its end, they follow from its length. */
class DrawnBytes extends Random {
  readonly #bytes: Uint8Array;
  #at = 1;

  constructor(bytes: Uint8Array) {
    super(bytes.length);
    this.#bytes = bytes;
  }

  override u32(): number {
    if (this.#at + 4 > this.#bytes.length) return super.u32();
    return (this.#take() | (this.#take() << 8) | (this.#take() << 16) | (this.#take() << 24)) >>> 0;
  }

  override below(limit: number): number {
    if (this.#at >= this.#bytes.length || limit > 0x1_0000) return super.below(limit);
    return (limit <= 0x100 ? this.#take() : this.#take() | (this.#take() << 8)) % limit;
  }

  #take(): number {
    return this.#bytes[this.#at++] ?? 0;
  }
}

const MAX_DRAWS = 400;

/** The first byte of an input says how RAM lies. */
export function drawnTarget(target: FuzzTarget): ByteTarget {
  let operations = 0;
  // A case without any is one itself.
  const counted = (random: Random): number => (operations += Math.max(1, random.operations));
  return {
    name: `drawn-${target.name}`,
    parser: `${target.name}, with draws from the input`,
    maxLength: MAX_DRAWS,
    seeds: [1, 2, 3, 4].map((seed) => {
      const random = new Random(seed);
      return Uint8Array.from({ length: MAX_DRAWS / 2 }, () => random.below(256));
    }),
    operations: () => operations,
    run(input) {
      const layout = RAM_LAYOUTS[(input[0] ?? 0) % RAM_LAYOUTS.length] ?? "flat";
      const random = new DrawnBytes(input);
      const running = target.run(random, layout);
      if (running !== undefined) return running.then(() => void counted(random));
      counted(random);
      return undefined;
    },
  };
}
