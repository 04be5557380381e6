// How often each stage asks each rung, so that --quick takes under 3 minutes and all under 30.
import type { StageName } from "./result.js";
import type { DensityLimits } from "./stages/density.js";

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
  readonly density: DensityLimits;
  /** For slow rungs. */
  readonly densitySlow: DensityLimits;
}

/** A quarter leaves enough for the host and for other programs. */
const SHARE = 0.25;
const DENSITY: DensityLimits = { share: SHARE, timeMs: 8000, instances: 256 };
const DENSITY_SLOW: DensityLimits = { share: SHARE, timeMs: 25_000, instances: 256 };

export function planFor(isQuick: boolean, rounds: number | undefined): Plan {
  if (isQuick) {
    return {
      rounds: {
        start: { fast: rounds ?? 5, slow: rounds ?? 2 },
        "at-once": { fast: 1, slow: 0 },
        work: { fast: 1, slow: 1 },
        network: { fast: 1, slow: 1 },
        memory: { fast: 1, slow: 1 },
        density: { fast: 0, slow: 0 },
      },
      workBudgetMs: 10,
      atOnce: [4],
      atOnceSlow: [],
      density: DENSITY,
      densitySlow: DENSITY_SLOW,
    };
  }
  return {
    rounds: {
      start: { fast: rounds ?? 20, slow: rounds ?? 10 },
      "at-once": { fast: 5, slow: 1 },
      work: { fast: 10, slow: 2 },
      network: { fast: 10, slow: 2 },
      memory: { fast: 2, slow: 1 },
      density: { fast: 1, slow: 1 },
    },
    workBudgetMs: 40,
    atOnce: [1, 2, 4, 8],
    atOnceSlow: [2, 4],
    density: DENSITY,
    densitySlow: DENSITY_SLOW,
  };
}
