// The same static program on every rung: what the rung costs while it runs, and what is seen from inside.
import type { Sample } from "../../harness.js";
import { HOST_KERNEL, type Climber } from "../climber.js";
import { parseSurvey } from "../survey.js";

export async function workTurn(climber: Climber, budgetMs: number): Promise<Sample> {
  const program = ["survey", String(budgetMs), String(process.pid), HOST_KERNEL];
  const one = await climber.startOne({ program, equipment: climber.disk() });
  const { work, skipped, isolation } = parseSurvey(one.output);
  if (isolation === undefined) throw new Error("the probe said nothing of what it sees");
  climber.isolation = isolation;
  climber.skip(skipped);
  return work;
}
