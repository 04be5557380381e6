// make fuzz-coverage: the parsers under inputs that are made of those that reached something new.
//   node --expose-gc build/test/fuzz/coverage/run.js [--target NAME] [--seed N] [--inputs N] [--keep]
//   node build/test/fuzz/coverage/run.js --target NAME --repro BASE64
// --keep writes the shortest inputs that reach all that was reached to test/fuzz/corpus. Without --target: all, one after the
// other, each in a process of its own. Ends with 1 if an input broke something, which it then shows, made as short as it could.
import { spawnSync } from "node:child_process";
import { register } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { BYTE_TARGETS } from "../byte-targets.js";
import type { ByteTarget } from "./byte-target.js";
import { readCorpus, writeCorpus } from "./corpus-file.js";
import { Broken, Engine, minimizeBroken, minimized } from "./engine.js";
import { Probe } from "./probe.js";
import { watch } from "./watchdog.js";

const DEFAULT_INPUTS = "1000000";
/** Inputs between two looks at the clock and the heap. */
const STEPS = 10;
const SETTLE_MS = 50;
/** What is alive after a collection may grow by so much from the middle to the end: `bytes`. */
const MAX_GROWTH = 8 * 2 ** 20;

async function heapBytes(): Promise<number> {
  const { gc } = globalThis as { readonly gc?: () => void };
  for (let times = 0; times < 3; times++) {
    gc?.();
    // Arrays outside the heap are let go behind the collector's back.
    await sleep(SETTLE_MS);
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

async function search(
  target: ByteTarget,
  probe: Probe,
  seed: number,
  inputs: number,
  isKept: boolean,
): Promise<boolean> {
  const { before, stop } = watch(target.maxLength);
  const engine = new Engine(target, probe, seed, before);
  // A stack for each refusal would take longer than most parsers; --repro shows it.
  Error.stackTraceLimit = 0;
  const begin = performance.now();
  const heaps: number[] = [];
  try {
    await engine.begin([...target.seeds, ...readCorpus(target.name)]);
    for (let step = 1; step <= STEPS; step++) {
      await engine.run((inputs * step) / STEPS);
      heaps.push(await heapBytes());
    }
  } catch (error) {
    if (!(error instanceof Broken)) throw error;
    await show(target, error);
    return false;
  } finally {
    stop();
  }
  const seconds = (performance.now() - begin) / 1000;
  const [first = 0] = heaps;
  const middle = heaps[STEPS / 2] ?? 0;
  const last = heaps.at(-1) ?? 0;
  console.log(
    `${target.name}: ${String(engine.count)} ${target.operations === undefined ? "" : `operations in ${String(engine.inputs)} `}inputs from seed ${String(seed)}, ${seconds.toFixed(0)} s (${(engine.count / seconds).toFixed(0)}/s), ` +
      `${String(engine.reached)} of ${String(probe.size)} places, ${String(engine.corpus.length)} kept, ` +
      `heap ${mib(first)}, ${mib(middle)}, ${mib(last)} MiB, RSS ${mib(process.memoryUsage().rss)} MiB`,
  );
  if (isKept) {
    const count = writeCorpus(target.name, await minimized(target, probe, engine.corpus));
    console.log(`${target.name}: ${String(count)} inputs in the corpus`);
  }
  if (last - middle <= MAX_GROWTH) return true;
  console.error(`${target.name}: it grows`);
  return false;
}

async function show(target: ByteTarget, { input, cause }: Broken): Promise<void> {
  console.error(cause);
  const what = String(cause);
  const shortest = await minimizeBroken(input, async (candidate) => {
    try {
      await target.run(candidate);
      return false;
    } catch (error) {
      return String(error) === what;
    }
  });
  console.error(`${target.name}: broken: --target ${target.name} --repro ${Buffer.from(shortest).toString("base64")}`);
}

const { values } = parseArgs({
  options: {
    target: { type: "string" },
    seed: { type: "string", default: "1" },
    inputs: { type: "string", default: DEFAULT_INPUTS },
    keep: { type: "boolean", default: false },
    repro: { type: "string" },
  },
});

async function main(name: string): Promise<void> {
  const load = BYTE_TARGETS[name];
  if (load === undefined) throw new Error(`No target ${name}; there are ${Object.keys(BYTE_TARGETS).join(", ")}`);
  const probe = new Probe();
  if (values.repro === undefined) {
    probe.install();
    register(new URL("loader.js", import.meta.url));
  }
  const target = await load();
  if (values.repro !== undefined) await target.run(Buffer.from(values.repro, "base64"));
  else if (!(await search(target, probe, Number(values.seed), Number(values.inputs), values.keep)))
    process.exitCode = 1;
}

if (values.target !== undefined) await main(values.target);
else {
  const args = [...process.execArgv, ...process.argv.slice(1)];
  for (const name of Object.keys(BYTE_TARGETS)) {
    const { status } = spawnSync(process.execPath, [...args, "--target", name], { stdio: "inherit" });
    if (status !== 0) process.exitCode = 1;
  }
}
