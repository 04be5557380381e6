// Launch to the program's first output, and the whole life; phases where the rung reports them.
import type { Sample } from "../../harness.js";
import type { Climber } from "../climber.js";

export async function startTurn(climber: Climber): Promise<Sample> {
  const one = await climber.startOne({ program: ["first"] });
  return { start_first_output_ms: one.firstMs, start_whole_life_ms: one.lifeMs, ...climber.report(one) };
}
