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
}

export type ResolvedBalloon = Required<{ readonly [Key in keyof BalloonConfig]: NonNullable<BalloonConfig[Key]> }>;

export const BALLOON_SCHEMA = {
  type: "object",
  title: "Balloon",
  properties: {
    targetMib: { type: "integer", minimum: 0, maximum: MAX_MEMORY_MIB, "x-unit": "MiB" },
    deflateOnOom: { type: "boolean" },
    reporting: { type: "boolean" },
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
  const { targetMib = 0, deflateOnOom = false, reporting = false } = balloon;
  const problem = balloonProblem(targetMib, memoryMib);
  if (problem !== undefined) problems.push(problem);
  return { targetMib, deflateOnOom, reporting };
}

/** What is wrong with a target, or undefined. */
export function balloonProblem(targetMib: unknown, memoryMib: number): string | undefined {
  const limits = { minimum: 0, maximum: memoryMib, "x-unit": "MiB, the guest's memory" };
  return integerProblem("Balloon: targetMib", targetMib, limits);
}
