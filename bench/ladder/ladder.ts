// The run: rungs are opened and started once, then measured stage by stage, round by round; what
// cannot be started is a row with its reason.
import { hostname } from "node:os";
import { availableParallelism } from "node:os";
import { measure, type Measurements, type Sample, type Variant } from "../harness.js";
import { loadAverage, stamp } from "../stamp.js";
import { cgroupLayout } from "./cgroup.js";
import { RungRun } from "./rung-run.js";
import { SLOW_START_MS, type Plan } from "./plan.js";
import { SCHEMA, STAGES, type LadderResult, type RungResult, type StageName } from "./result.js";
import type { Rung } from "./rung.js";
import { openWorkspace } from "./workspace.js";
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

function isSlow(rungRun: RungRun): boolean {
  return (rungRun.firstStartMs ?? 0) > SLOW_START_MS;
}

function turnOf(stage: StageName, rungRun: RungRun, plan: Plan): Promise<Sample> {
  switch (stage) {
    case "start":
      return startTurn(rungRun);
    case "at-once":
      return atOnceTurn(rungRun, isSlow(rungRun) ? plan.atOnceSlow : plan.atOnce);
    case "work":
      return workTurn(rungRun, plan.workBudgetMs);
    case "network": {
      const { joint } = rungRun;
      if ("missing" in joint) throw new Error(joint.missing);
      return networkTurn(rungRun, joint, plan.workBudgetMs);
    }
    case "memory":
      return memoryTurn(rungRun, plan.workBudgetMs);
    case "density":
      return densityTurn(rungRun, isSlow(rungRun) ? plan.densitySlow : plan.density);
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
  const workspace = await openWorkspace(run.signal);
  const rungRuns = new Map<string, RungRun>();
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
      const rungRun = rungRuns.get(name);
      const result = rungRun === undefined ? reasons.get(name) : { ...rungRun.result(), skipped: null };
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
        const rungRun = new RungRun(workspace, { rung, open: await rung.open(workspace) }, detected.version);
        rungRuns.set(rung.name, rungRun);
        rungRun.firstStartMs = (await rungRun.startOne({ program: ["first"] })).firstMs;
      } catch (error) {
        run.signal.throwIfAborted();
        const failed = rungRuns.get(rung.name);
        rungRuns.delete(rung.name);
        await failed?.close();
        reasons.set(rung.name, absent(rung, detected.version, message(error)));
      }
    }
    for (const stage of STAGES) {
      if (stages[stage] !== undefined) continue;
      const variants = [...rungRuns.values()].flatMap((rungRun): Variant[] => {
        const rounds = run.plan.rounds[stage][isSlow(rungRun) ? "slow" : "fast"];
        if (rounds === 0) return [];
        if (stage === "network" && "missing" in rungRun.joint) {
          rungRun.skip({ network: rungRun.joint.missing });
          return [];
        }
        return [{ name: rungRun.rung.name, rounds, turn: () => turnOf(stage, rungRun, run.plan) }];
      });
      if (variants.length === 0) continue;
      const rounds = Math.max(...variants.map((variant) => variant.rounds ?? 0));
      // The first starts above were the warm-up.
      stages[stage] = await measure(variants, {
        rounds,
        warmups: 0,
        resume: unfinished?.stage === stage ? unfinished : undefined,
        afterRound: (done) => {
          // A round that was cut short does not count.
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
    await closeAll([...rungRuns.values(), workspace]);
  }
}

/** What a run has made could not be removed; it replaces the error that ended the run. */
export class LeftBehindError extends Error {}

/** One that cannot be closed does not keep the others, of which the last is the run's folder, from being closed. */
export async function closeAll(all: readonly { close(): void | Promise<void> }[]): Promise<void> {
  const errors: unknown[] = [];
  for (const one of all) {
    try {
      await one.close();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0)
    throw new LeftBehindError(`cleaning up: ${errors.map(message).join("; ")}`, { cause: errors[0] });
}

/** What only a stage of the interrupted run has found out. */
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
