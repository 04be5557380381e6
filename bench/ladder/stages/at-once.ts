// Several starts at the same moment, and the rate of starts.
import type { Sample } from "../../harness.js";
import { median } from "../../statistics.js";
import type { RungRun } from "../rung-run.js";

export async function atOnceTurn(rungRun: RungRun, counts: readonly number[]): Promise<Sample> {
  const sample: Record<string, number> = {};
  for (const count of counts) {
    const all = await rungRun.start({ program: ["first"], count });
    const endMs = Math.max(...all.map((one) => one.endMs));
    sample[`at_once_${String(count)}_first_output_ms`] = median(all.map((one) => one.firstMs));
    sample[`at_once_${String(count)}_starts_per_s`] = (count / endMs) * 1000;
  }
  return sample;
}
