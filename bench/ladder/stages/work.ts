// The same static program on every rung: what the rung costs while it runs, and what the program sees.
import type { Sample } from "../../harness.js";
import { HOST_KERNEL, type RungRun } from "../rung-run.js";
import { parseSurvey } from "../survey.js";

export async function workTurn(rungRun: RungRun, budgetMs: number): Promise<Sample> {
  const program = ["survey", String(budgetMs), String(process.pid), HOST_KERNEL];
  const one = await rungRun.startOne({ program, equipment: rungRun.disk() });
  const { work, skipped, isolation } = parseSurvey(one.output);
  if (isolation === undefined) throw new Error("the probe said nothing of what it sees");
  rungRun.isolation = isolation;
  rungRun.skip(skipped);
  return work;
}
