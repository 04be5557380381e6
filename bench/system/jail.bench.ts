// What the jail costs a start: from the start of `vmlet boot` to the first byte that its guest prints, with and without. The guest has a few
// instructions, so that the start is all there is to see.
import { asm, miniKernel } from "../../test/helpers/mini-kernel.js";
import { bootWords, start } from "../../test/helpers/program.js";
import {
  atMost,
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Target,
  type Variant,
} from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { pairwise } from "../statistics.js";

const OUTPUT = "start_to_output_ms";
const OFF = "--jail off";
const ON = "--jail on";
/** Of a start that has none. */
const LIMIT = 1.1;
const LIMIT_MS = 5;
/** A turn is as long as a blink, and some meet other work: this many of them make a round. */
const STARTS = 5;

async function startMs(words: readonly string[]): Promise<number> {
  const startedMs = performance.now();
  const vm = start(words, { env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined } });
  await vm.until("up");
  const ms = performance.now() - startedMs;
  const { status, stderr } = await vm.ended;
  if (status !== 0) throw new Error(`${words.join(" ")}: status ${String(status)}: ${stderr}`);
  return ms;
}

async function run(context: BenchContext): Promise<BenchResult> {
  const kernel = miniKernel(asm.print("up\n"), asm.powerOff(0), asm.haltForEver());
  const variants: Variant[] = ["off", "on", "strict"].map((mode) => ({
    name: `--jail ${mode}`,
    turn: async () => {
      const all: number[] = [];
      while (all.length < STARTS) {
        all.push(await startMs(bootWords(kernel.path, "--quiet", "--jail", mode)));
      }
      return { [OUTPUT]: Math.min(...all) };
    },
  }));
  try {
    const measured = await measure(variants, context);
    return { ...measured, targets: targets(measured), notes: notes() };
  } finally {
    kernel.remove();
  }
}

function targets(measured: Parameters<typeof samplesOf>[0]): Target[] {
  if (!hasSeries(measured, ON, OUTPUT) || !hasSeries(measured, OFF, OUTPUT)) return [];
  const [on, off] = [samplesOf(measured, ON, OUTPUT), samplesOf(measured, OFF, OUTPUT)];
  return [
    ratioAtMost("a start in the jail against one outside", on, off, LIMIT),
    atMost(
      "what the jail adds to a start",
      pairwise(on, off, (x, y) => x - y),
      LIMIT_MS,
      "ms",
    ),
  ];
}

function notes(): string[] {
  return [
    `/dev/kvm of this host: ${acceleratorInWords()}. 32 MiB, a guest of a few instructions, no devices but the console.`,
    `A sample is the quickest of ${String(STARTS)} starts in a row: the others have met other work of the host.`,
  ];
}

export const jail: Bench = {
  name: "jail",
  about: "start to the guest's first output, outside of the jail and in it, on this host",
  run,
};
