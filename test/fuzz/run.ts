// make fuzz: runs the fuzzers for longer than the tests do.
//   node build/test/fuzz/run.js [--target NAME] [--layout flat|split|large] [--seed N] [--iters N]
//   node build/test/fuzz/run.js --target NAME --layout flat|split|large --repro CASE_SEED
import { parseArgs } from "node:util";
import { RAM_LAYOUTS, type RamLayout } from "./hostile-memory.js";
import { caseSeed, Random } from "./random.js";
import type { FuzzTarget } from "./target.js";
import { FUZZ_TARGETS } from "./targets.js";

const DEFAULT_ITERATIONS = 20_000;

function number(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} ${text} is not a whole number`);
  return value;
}

async function fuzz(target: FuzzTarget, layout: RamLayout, seed: number, iterations: number): Promise<boolean> {
  const start = performance.now();
  for (let index = 0; index < iterations; index++) {
    const current = caseSeed(seed, index);
    try {
      await target.run(new Random(current), layout);
    } catch (error) {
      console.error(error);
      console.error(
        `${target.name}: broken by case ${String(index)}: --target ${target.name} --layout ${layout} --repro ${String(current)}`,
      );
      return false;
    }
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(
    `${target.name}, ${layout} memory: ${String(iterations)} cases from seed ${String(seed)}, ${seconds.toFixed(1)} s`,
  );
  return true;
}

const { values } = parseArgs({
  options: {
    target: { type: "string" },
    layout: { type: "string" },
    seed: { type: "string" },
    iters: { type: "string" },
    repro: { type: "string" },
  },
});
const targets = FUZZ_TARGETS.filter(({ name }) => values.target === undefined || values.target === name);
if (targets.length === 0) {
  throw new Error(`No target ${values.target ?? ""}; there are ${FUZZ_TARGETS.map(({ name }) => name).join(", ")}`);
}
const layouts = RAM_LAYOUTS.filter((layout) => values.layout === undefined || values.layout === layout);
if (layouts.length === 0) throw new Error(`No layout ${values.layout ?? ""}; there are ${RAM_LAYOUTS.join(", ")}`);
const repro = number(values.repro, "repro");
if (repro !== undefined) {
  for (const target of targets) for (const layout of layouts) await target.run(new Random(repro), layout);
} else {
  const seed = number(values.seed, "seed") ?? Math.floor(performance.timeOrigin) % 2 ** 32;
  const iterations = number(values.iters, "iters") ?? DEFAULT_ITERATIONS;
  for (const target of targets) {
    for (const layout of layouts) if (!(await fuzz(target, layout, seed, iterations))) process.exitCode = 1;
  }
}
