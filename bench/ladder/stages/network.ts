// A connection to a peer on the host over the link that the rung has: round trips, data both ways.
import type { Sample } from "../../harness.js";
import type { Climber } from "../climber.js";
import type { Joint } from "../network.js";
import { parseSurvey } from "../survey.js";

export async function networkTurn(climber: Climber, joint: Joint, budgetMs: number): Promise<Sample> {
  const program = ["network", joint.address, String(joint.port), String(budgetMs)];
  const one = await climber.startOne({ program, equipment: { network: joint } });
  const { work, skipped } = parseSurvey(one.output);
  climber.skip(skipped);
  return work;
}
