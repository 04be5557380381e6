// Numbers that look random and are decided by a seed alone: SplitMix32.

/** What breaks code that counts: edges of widths, signs and page sizes. */
const EDGES: readonly number[] = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 255, 256, 257, 511, 512, 513, 4095, 4096, 4097, 0x7fff, 0x8000, 0xffff,
  0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_fffe, 0xffff_ffff,
];

export class Random {
  /** Operations of a case that it has decided on: each is one thing that a guest, a file, the host or a clock did to what is tested. */
  operations = 0;
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  u32(): number {
    this.#state = (this.#state + 0x9e37_79b9) >>> 0;
    let value = this.#state;
    value = Math.imul(value ^ (value >>> 16), 0x21f0_aaad);
    value = Math.imul(value ^ (value >>> 15), 0x735a_2d97);
    return (value ^ (value >>> 15)) >>> 0;
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit);
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error("Nothing to pick from");
    return item;
  }

  /** A 32-bit value: mostly an edge, sometimes anything. */
  value(): number {
    return this.oneIn(4) ? this.u32() : this.pick(EDGES);
  }
}

/** Seed of case `index` in the run that began with `seed`. */
export function caseSeed(seed: number, index: number): number {
  return new Random((seed + Math.imul(index, 0x85eb_ca6b)) >>> 0).u32();
}
