// How often each stage asks each rung, so that --quick takes under 3 minutes and all under 30.
import type { StageName } from "./result.js";

/** A rung whose first start took longer than this, `ms`, gets fewer rounds in most stages. */
export const SLOW_START_MS = 2000;

export interface Rounds {
  readonly fast: number;
  /** 0: slow rungs are left out of this stage. */
  readonly slow: number;
}

export interface Plan {
  readonly rounds: Readonly<Record<StageName, Rounds>>;
  /** Time for one workload, `ms`. */
  readonly workBudgetMs: number;
  readonly atOnce: readonly number[];
  readonly atOnceSlow: readonly number[];
  /** As many idle instances are started for the density, by steps, within the budget of memory. */
  readonly densitySteps: readonly number[];
  readonly densityStepsSlow: readonly number[];
  readonly densityBudgetMib: number;
}

export function planFor(isQuick: boolean, rounds: number | undefined): Plan {
  if (isQuick) {
    return {
      rounds: {
        start: { fast: rounds ?? 5, slow: rounds ?? 2 },
        "at-once": { fast: 1, slow: 0 },
        work: { fast: 1, slow: 1 },
        memory: { fast: 1, slow: 1 },
        density: { fast: 0, slow: 0 },
      },
      workBudgetMs: 10,
      atOnce: [4],
      atOnceSlow: [],
      densitySteps: [],
      densityStepsSlow: [],
      densityBudgetMib: 0,
    };
  }
  return {
    rounds: {
      start: { fast: rounds ?? 20, slow: rounds ?? 10 },
      "at-once": { fast: 5, slow: 1 },
      work: { fast: 5, slow: 2 },
      memory: { fast: 3, slow: 2 },
      density: { fast: 1, slow: 1 },
    },
    workBudgetMs: 40,
    atOnce: [1, 2, 4, 8],
    atOnceSlow: [2, 4],
    densitySteps: [1, 2, 4, 8, 16],
    densityStepsSlow: [1, 2],
    densityBudgetMib: 256,
  };
}
