// Needs: nothing. A short run of every fuzzer from fixed seeds; `make fuzz` runs them for longer.
import assert from "node:assert/strict";
import { CORPUS } from "./corpus.js";
import { RAM_LAYOUTS } from "./hostile-memory.js";
import { caseSeed, Random } from "./random.js";
import { FUZZ_TARGETS } from "./targets.js";

const CASES = 1000;

describe("fuzz", function () {
  this.timeout(60_000);

  it("the same seed makes the same case", () => {
    const draw = (seed: number): number[] => Array.from({ length: 8 }, () => new Random(seed).value());
    assert.deepEqual(draw(7), draw(7));
    assert.notEqual(new Random(7).u32(), new Random(8).u32());
    assert.equal(new Set(Array.from({ length: 1000 }, (_, index) => caseSeed(1, index))).size, 1000);
  });

  for (const target of FUZZ_TARGETS) {
    for (const layout of RAM_LAYOUTS) {
      it(`${target.name}: ${String(CASES)} cases in ${layout} memory`, () => {
        for (let index = 0; index < CASES; index++) {
          const seed = caseSeed(1, index);
          try {
            target.run(new Random(seed), layout);
          } catch (error) {
            throw new Error(`--target ${target.name} --layout ${layout} --repro ${String(seed)}`, { cause: error });
          }
        }
      });
    }
  }

  for (const { target: name, seed, layout = "flat", what } of CORPUS) {
    it(`${name}, seed ${String(seed)}: ${what}`, () => {
      const target = FUZZ_TARGETS.find((candidate) => candidate.name === name);
      assert.ok(target !== undefined, `no target ${name}`);
      target.run(new Random(seed), layout);
    });
  }
});
