// The memory balloon of a VM: what a caller may ask for.
import { checkKeys, integerProblem } from "./checks.js";

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

const KEYS: readonly (keyof BalloonConfig)[] = ["targetMib", "deflateOnOom", "reporting"];

export function resolveBalloon(
  balloon: BalloonConfig | undefined,
  memoryMib: number,
  problems: string[],
): ResolvedBalloon | undefined {
  if (balloon === undefined) return undefined;
  checkKeys("Balloon", balloon, KEYS, problems);
  const problem = balloonProblem(balloon.targetMib, memoryMib);
  if (problem !== undefined) problems.push(problem);
  return {
    targetMib: balloon.targetMib,
    deflateOnOom: balloon.deflateOnOom ?? false,
    reporting: balloon.reporting ?? false,
  };
}

/** What is wrong with a target, or undefined. */
export function balloonProblem(targetMib: number, memoryMib: number): string | undefined {
  return integerProblem("Balloon of", targetMib, 0, memoryMib, " MiB, the guest's memory");
}
