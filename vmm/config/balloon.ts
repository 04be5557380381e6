// The memory balloon of a VM: what a caller may ask for.
import { integerProblem, type Checked } from "./check.js";
import { MAX_MEMORY_MIB } from "./defaults.js";

/** A virtio memory balloon: memory that the guest gives back to the host. */
export interface BalloonConfig {
  /** `MiB` that the guest gives up, from 0 on; `Vm.setBalloon` changes it later. */
  readonly targetMib: number;
  /** The guest takes memory back by itself before it runs out of it. */
  readonly deflateOnOom?: boolean | undefined;
  /** The guest tells which pages it does not use, now and then; the host's memory behind them is free. */
  readonly reporting?: boolean | undefined;
  /** The guest can be asked for all pages that it does not use (`Vm.startBalloonHinting`). */
  readonly hinting?: boolean | undefined;
  /**
   * Seconds after which the guest is asked about its memory, again and again; 0: it cannot be asked. Default: it is asked
   * when somebody wants to know.
   */
  readonly statisticsIntervalS?: number | undefined;
}

export interface ResolvedBalloon {
  readonly targetMib: number;
  readonly deflateOnOom: boolean;
  readonly reporting: boolean;
  readonly hinting: boolean;
  readonly statisticsIntervalS: number | undefined;
}

/** As much as Firecracker takes, and more than a day. */
const INTERVAL = { minimum: 0, maximum: 65535, "x-unit": "s" } as const;

export const BALLOON_SCHEMA = {
  type: "object",
  title: "Balloon",
  properties: {
    targetMib: { type: "integer", minimum: 0, maximum: MAX_MEMORY_MIB, "x-unit": "MiB" },
    deflateOnOom: { type: "boolean" },
    reporting: { type: "boolean" },
    hinting: { type: "boolean" },
    statisticsIntervalS: { type: "integer", ...INTERVAL },
  },
  required: ["targetMib"],
  additionalProperties: false,
} as const;

export function resolveBalloon(
  balloon: Checked<typeof BALLOON_SCHEMA> | undefined,
  memoryMib: number,
  problems: string[],
): ResolvedBalloon | undefined {
  if (balloon === undefined) return undefined;
  const { targetMib = 0, deflateOnOom = false, reporting = false, hinting = false, statisticsIntervalS } = balloon;
  const problem = balloonProblem(targetMib, memoryMib);
  if (problem !== undefined) problems.push(problem);
  return { targetMib, deflateOnOom, reporting, hinting, statisticsIntervalS };
}

/** What is wrong with a target, or undefined. */
export function balloonProblem(targetMib: unknown, memoryMib: number): string | undefined {
  const limits = { minimum: 0, maximum: memoryMib, "x-unit": "MiB, the guest's memory" };
  return integerProblem("Balloon: targetMib", targetMib, limits);
}

/** What is wrong with another interval while the guest runs, which knows since its start whether it can be asked; or undefined. */
export function intervalProblem(seconds: unknown, { statisticsIntervalS }: ResolvedBalloon): string | undefined {
  const problem = integerProblem("Balloon: statisticsIntervalS", seconds, INTERVAL);
  if (problem !== undefined) return problem;
  if (statisticsIntervalS === 0 && seconds !== 0)
    return "Balloon: statistics were off at the start (statisticsIntervalS 0)";
  if (statisticsIntervalS !== 0 && seconds === 0)
    return "Balloon: statistics cannot be turned off while the guest runs";
  return undefined;
}
