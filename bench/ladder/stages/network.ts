// A connection to a peer on the host over the link that the rung has: round trips, data both ways.
import type { Sample } from "../../harness.js";
import type { RungRun } from "../rung-run.js";
import type { Joint } from "../network.js";
import { parseSurvey } from "../survey.js";

export async function networkTurn(rungRun: RungRun, joint: Joint, budgetMs: number): Promise<Sample> {
  const program = ["network", joint.address, String(joint.port), String(budgetMs)];
  const one = await rungRun.startOne({ program, equipment: { network: joint } });
  const { work, skipped } = parseSurvey(one.output);
  rungRun.skip(skipped);
  return work;
}
