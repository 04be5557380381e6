// Needs: nothing. A short run of every fuzzer from fixed seeds, and all inputs that were kept; `make fuzz` and `make fuzz-coverage`
// run them for longer.
import assert from "node:assert/strict";
import { BYTE_TARGETS } from "./byte-targets.js";
import { CORPUS } from "./corpus.js";
import { readCorpus } from "./coverage/corpus-file.js";
import { Broken, Engine } from "./coverage/engine.js";
import { Probe } from "./coverage/probe.js";
import { RAM_LAYOUTS, type RamLayout } from "./hostile-memory.js";
import { caseSeed, Random } from "./random.js";
import { FUZZ_TARGETS } from "./targets.js";

const CASES = { flat: 1000, split: 1000, large: 100 } satisfies Record<RamLayout, number>;
/** Inputs of each parser besides those that were kept. */
const MADE = 100;

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
      it(`${target.name}: ${String(CASES[layout])} cases in ${layout} memory`, async () => {
        for (let index = 0; index < CASES[layout]; index++) {
          const seed = caseSeed(1, index);
          try {
            await target.run(new Random(seed), layout);
          } catch (error) {
            throw new Error(`--target ${target.name} --layout ${layout} --repro ${String(seed)}`, { cause: error });
          }
        }
      });
    }
  }

  for (const { target: name, seed, layout = "flat", what } of CORPUS) {
    it(`${name}, seed ${String(seed)}: ${what}`, async () => {
      const target = FUZZ_TARGETS.find((candidate) => candidate.name === name);
      assert.ok(target !== undefined, `no target ${name}`);
      await target.run(new Random(seed), layout);
    });
  }

  for (const [name, load] of Object.entries(BYTE_TARGETS)) {
    it(`${name}: the inputs that were kept, and ${String(MADE)} made of them`, async () => {
      const target = await load();
      assert.equal(target.name, name);
      // Nothing here is instrumented: what is made follows from the seed alone.
      const engine = new Engine(target, new Probe(), 1);
      try {
        await engine.begin([...target.seeds, ...readCorpus(name)]);
        await engine.run(engine.count + MADE);
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        const text = Buffer.from(error.input).toString("base64");
        throw new Error(`coverage/run.js --target ${name} --repro ${text}`, { cause: error.cause });
      }
    });
  }
});
