// The run: rungs are opened and started once, then measured stage by stage, round by round; what
// cannot be started is a row with its reason.
import { hostname } from "node:os";
import { availableParallelism } from "node:os";
import { measure, type Measurements, type Sample, type Variant } from "../harness.js";
import { loadAverage, stamp } from "../stamp.js";
import { cgroupLayout } from "./cgroup.js";
import { Climber } from "./climber.js";
import { SLOW_START_MS, type Plan } from "./plan.js";
import { SCHEMA, STAGES, type LadderResult, type RungResult, type StageName } from "./result.js";
import type { Rung } from "./rung.js";
import { openSite } from "./site.js";
import { atOnceTurn } from "./stages/at-once.js";
import { densityTurn } from "./stages/density.js";
import { memoryTurn } from "./stages/memory.js";
import { networkTurn } from "./stages/network.js";
import { startTurn } from "./stages/start.js";
import { workTurn } from "./stages/work.js";

export interface Run {
  readonly rungs: readonly Rung[];
  readonly plan: Plan;
  readonly quick: boolean;
  readonly rounds: number;
  readonly signal: AbortSignal;
  /** A run that was interrupted: its finished stages, and rounds of the next one, are not measured again. */
  readonly resumed: LadderResult | undefined;
  progress(text: string): void;
  /** After each round. */
  save(result: LadderResult): void;
}

const ABOUT: Readonly<Record<StageName, string>> = {
  start: "start-up",
  "at-once": "several at once",
  work: "work and isolation",
  network: "network",
  memory: "memory",
  density: "density",
};

function isSlow(climber: Climber): boolean {
  return (climber.firstStartMs ?? 0) > SLOW_START_MS;
}

function turnOf(stage: StageName, climber: Climber, plan: Plan): Promise<Sample> {
  switch (stage) {
    case "start":
      return startTurn(climber);
    case "at-once":
      return atOnceTurn(climber, isSlow(climber) ? plan.atOnceSlow : plan.atOnce);
    case "work":
      return workTurn(climber, plan.workBudgetMs);
    case "network": {
      const { joint } = climber;
      if ("missing" in joint) throw new Error(joint.missing);
      return networkTurn(climber, joint, plan.workBudgetMs);
    }
    case "memory":
      return memoryTurn(climber, plan.workBudgetMs);
    case "density":
      return densityTurn(climber, isSlow(climber) ? plan.densitySlow : plan.density);
  }
}

function absent({ name, adds, family, limits }: Rung, version: string | null, reason: string): RungResult {
  return {
    ...{ name, adds, family, limits, version, skipped: reason },
    ...{ accelerator: null, first_start_ms: null, failed_starts: 0, starts: 0, last_failure: null },
    ...{ isolation: null, namespaces: null, outside: null, skipped_work: {}, density: null },
  };
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Runs everything. Throws when interrupted, and if nothing can be built; nothing is left in either case. */
export async function runLadder(run: Run): Promise<LadderResult> {
  const at = stamp(availableParallelism());
  const site = await openSite(run.signal);
  const climbers = new Map<string, Climber>();
  const reasons = new Map<string, RungResult>();
  const stages: Partial<Record<StageName, Measurements>> = { ...run.resumed?.stages };
  let unfinished = run.resumed?.unfinished ?? null;

  const current = (): LadderResult => ({
    schema: SCHEMA,
    stamp: run.resumed?.stamp ?? at,
    host: { cgroups: cgroupLayout().kind, hostname: hostname() },
    quick: run.quick,
    rounds: run.rounds,
    rungs: run.rungs.flatMap(({ name }): RungResult[] => {
      const climber = climbers.get(name);
      const result = climber === undefined ? reasons.get(name) : { ...climber.result(), skipped: null };
      return result === undefined ? [] : [withEarlier(result, run.resumed)];
    }),
    stages,
    unfinished,
    notes: [
      `Load average ${String(at.load)} at the start, ${String(loadAverage())} at the end, on ${String(at.cpus)} CPUs.`,
    ],
  });

  try {
    for (const rung of run.rungs) {
      run.progress(`first start: ${rung.name}`);
      const detected = rung.detect();
      if ("missing" in detected) {
        reasons.set(rung.name, absent(rung, null, detected.missing));
        continue;
      }
      try {
        const climber = new Climber(site, { rung, open: await rung.open(site) }, detected.version);
        climbers.set(rung.name, climber);
        climber.firstStartMs = (await climber.startOne({ program: ["first"] })).firstMs;
      } catch (error) {
        run.signal.throwIfAborted();
        const failed = climbers.get(rung.name);
        climbers.delete(rung.name);
        await failed?.close();
        reasons.set(rung.name, absent(rung, detected.version, message(error)));
      }
    }
    for (const stage of STAGES) {
      if (stages[stage] !== undefined) continue;
      const variants = [...climbers.values()].flatMap((climber): Variant[] => {
        const rounds = run.plan.rounds[stage][isSlow(climber) ? "slow" : "fast"];
        if (rounds === 0) return [];
        if (stage === "network" && "missing" in climber.joint) {
          climber.skip({ network: climber.joint.missing });
          return [];
        }
        return [{ name: climber.rung.name, rounds, turn: () => turnOf(stage, climber, run.plan) }];
      });
      if (variants.length === 0) continue;
      const rounds = Math.max(...variants.map((variant) => variant.rounds ?? 0));
      // The first starts above were the warm-up.
      stages[stage] = await measure(variants, {
        rounds,
        warmups: 0,
        resume: unfinished?.stage === stage ? unfinished : undefined,
        afterRound: (done) => {
          // A round that was cut short is none.
          run.signal.throwIfAborted();
          unfinished = { stage, ...done };
          run.save(current());
        },
        progress: (text) => {
          run.progress(`${ABOUT[stage]}: ${text}`);
        },
      });
      unfinished = null;
      run.save(current());
    }
    return current();
  } finally {
    for (const climber of climbers.values()) await climber.close();
    site.close();
  }
}

/** What only a stage of the interrupted run has seen. */
function withEarlier(result: RungResult, resumed: LadderResult | undefined): RungResult {
  const earlier = resumed?.rungs.find(({ name }) => name === result.name);
  if (earlier === undefined) return result;
  return {
    ...result,
    accelerator: result.accelerator ?? earlier.accelerator,
    first_start_ms: earlier.first_start_ms ?? result.first_start_ms,
    starts: earlier.starts + result.starts,
    failed_starts: earlier.failed_starts + result.failed_starts,
    last_failure: result.last_failure ?? earlier.last_failure,
    isolation: result.isolation ?? earlier.isolation,
    namespaces: result.namespaces ?? earlier.namespaces,
    outside: result.outside ?? earlier.outside,
    skipped_work: { ...earlier.skipped_work, ...result.skipped_work },
    density: result.density ?? earlier.density,
  };
}
