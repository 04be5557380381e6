// Launch to the program's first output, and the whole life; phases where the rung reports them.
import type { Sample } from "../../harness.js";
import type { RungRun } from "../rung-run.js";

export async function startTurn(rungRun: RungRun): Promise<Sample> {
  const one = await rungRun.startOne({ program: ["first"] });
  return { start_first_output_ms: one.firstMs, start_whole_life_ms: one.lifeMs, ...rungRun.report(one) };
}
