// vCPUs and memory of a VM: their limits, and what they have to do with one another.
import { MAX_CPUS, MAX_MEMORY_MIB, MIN_MEMORY_MIB } from "./defaults.js";
import type { HugePages } from "./types.js";

export const CPUS_SCHEMA = { type: "integer", minimum: 1, maximum: MAX_CPUS } as const;
export const MEMORY_SCHEMA = {
  type: "integer",
  minimum: MIN_MEMORY_MIB,
  maximum: MAX_MEMORY_MIB,
  "x-unit": "MiB",
} as const;

const HUGE_PAGE_MIB = 2;

export interface MachineSettings {
  readonly cpus: number;
  readonly smt: boolean;
  readonly memoryMib: number;
  readonly hugePages: HugePages;
}

/** What is wrong with fields that are right by themselves; `names`: what a message calls them. */
export function machineProblems(
  { cpus, smt, memoryMib, hugePages }: MachineSettings,
  names: { readonly cpus: string; readonly memoryMib: string },
): string[] {
  return [
    ...(smt && cpus > 1 && cpus % 2 !== 0
      ? [`${names.cpus} ${String(cpus)} is odd, and two of them are to be a core (smt)`]
      : []),
    ...(hugePages !== "none" && memoryMib % HUGE_PAGE_MIB !== 0
      ? [
          `${names.memoryMib} ${String(memoryMib)} is odd, and a huge page has ${String(HUGE_PAGE_MIB)} MiB (${hugePages})`,
        ]
      : []),
  ];
}
