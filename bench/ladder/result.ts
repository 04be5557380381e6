// The ladder's JSON: everything that was measured, with every sample. README.md describes it.
import type { Measurements, RoundsDone } from "../harness.js";
import type { Stamp } from "../stamp.js";
import type { Family } from "./rung.js";
import type { Isolation, Skipped } from "./survey.js";

/** Raised when a reader of the old form would misunderstand the new one. */
export const SCHEMA = 2;

/** In the order in which they are measured. */
export const STAGES = ["start", "at-once", "work", "network", "memory", "density"] as const;
export type StageName = (typeof STAGES)[number];

/** From /proc/PID/status. */
export interface Outside {
  /** Effective, in the host's numbers. */
  readonly uid: number;
  /** Effective ones; in a user namespace of its own, they hold only there. */
  readonly capabilities: number;
  readonly has_filter: boolean;
}

/** How the stage about density ended for a rung. */
export interface DensityEnd {
  /** MiB, a share of the memory that was available then. */
  readonly budget_mib: number;
  /** Idle instances that ran together. */
  readonly started: number;
  /** As many as the budget holds: found by starting them, or extrapolated from what the last ones cost. */
  readonly in_budget: number;
  readonly is_extrapolated: boolean;
  /** What ended it. */
  readonly stopped: string;
}

export interface RungResult {
  readonly name: string;
  readonly adds: string;
  readonly family: Family;
  /** Of the program that makes the rung; null if it is not there. */
  readonly version: string | null;
  /** Why there are no figures; null if there are. */
  readonly skipped: string | null;
  /** What executes the kernel's code of a VM; null for what shares the host's. */
  readonly accelerator: string | null;
  /** "own" limits, those of a group that the harness puts it into, or "none": a group needs root. */
  readonly limits: "own" | "group" | "none";
  /** The very first start, `ms` to the first output: files may come from the disk, caches are cold. */
  readonly first_start_ms: number | null;
  /** Starts that failed and were tried again, of all. */
  readonly failed_starts: number;
  readonly starts: number;
  /** Output of the last failed start. */
  readonly last_failure: string | null;
  readonly isolation: Isolation | null;
  /** Kinds of namespaces that are not the host's, seen from the host; null for VMs. */
  readonly namespaces: readonly string[] | null;
  /** What the host sees of the program's process; of a VM, its monitor's. */
  readonly outside: Outside | null;
  /** Workloads that it cannot run, and why; "network" and "disk" for all of their kind. */
  readonly skipped_work: Skipped;
  readonly density: DensityEnd | null;
}

export interface LadderResult {
  readonly schema: typeof SCHEMA;
  readonly stamp: Stamp;
  /** Root directory's file system, cgroup layout. */
  readonly host: { readonly cgroups: string; readonly hostname: string };
  readonly quick: boolean;
  readonly rounds: number;
  readonly rungs: readonly RungResult[];
  /** By stage; one that is not there has not been measured. */
  readonly stages: Partial<Readonly<Record<StageName, Measurements>>>;
  /** The stage that was interrupted, with its whole rounds; null if none was. */
  readonly unfinished: ({ readonly stage: StageName } & RoundsDone) | null;
  readonly notes: readonly string[];
}
