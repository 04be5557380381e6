// What programs/probe.c prints, as values.
import type { Sample } from "../harness.js";

export interface Isolation {
  /** Release of the kernel that the program runs on. */
  readonly kernel: string;
  readonly hostname: string;
  readonly own_kernel: boolean;
  readonly pid: number;
  readonly uid: number;
  /** It can send a signal to a process of the host. */
  readonly sees_host_processes: boolean;
  readonly interfaces: readonly string[];
  readonly capabilities: number;
  /** 0 none, 1 strict, 2 filter; negative: the kernel has none. */
  readonly seccomp: number;
  readonly no_new_privileges: boolean;
  /** By number of the system call: 0 success, errno, 1000 killed, -1 not tried. Empty with a kernel of its own. */
  readonly calls: readonly number[];
}

/** Workloads that a rung cannot run, with the reason. */
export type Skipped = Readonly<Record<string, string>>;

export interface Survey {
  /** Nanoseconds an operation by workload. */
  readonly work: Sample;
  readonly skipped: Skipped;
  readonly isolation: Isolation | undefined;
}

interface Line {
  readonly metric?: string;
  readonly total_ns?: number;
  readonly count?: number;
  readonly skipped?: string;
  readonly isolation?: Isolation;
}

/** Throws if the text is not the probe's. */
export function parseSurvey(output: string): Survey {
  const work: Record<string, number> = {};
  const skipped: Record<string, string> = {};
  let isolation: Isolation | undefined;
  for (const text of output.split(/\r?\n/)) {
    if (text.startsWith("probe: ")) throw new Error(text);
    if (!text.startsWith("{")) continue;
    let line: Line;
    try {
      line = JSON.parse(text) as Line;
    } catch (error) {
      throw new Error(`garbage where figures should be: ${text.slice(0, 80)}`, { cause: error });
    }
    if (line.isolation !== undefined) isolation = line.isolation;
    else if (line.metric === undefined) throw new Error(`garbage where figures should be: ${text.slice(0, 80)}`);
    else if (line.skipped !== undefined) skipped[line.metric] = line.skipped;
    else work[line.metric] = (line.total_ns ?? Number.NaN) / (line.count ?? Number.NaN);
  }
  return { work, skipped, isolation };
}

const EPERM = 1;
const ENOSYS = 38;
const KILLED = 1000;

function isRefused(result: number | undefined): boolean {
  return result === EPERM || result === ENOSYS || result === KILLED;
}

/** How many of the system calls that answer a plain process answer here, too; 0 with a kernel of its own. */
export function reachableCalls(here: Isolation, plain: Isolation): number {
  if (here.own_kernel) return 0;
  return plain.calls.filter((result, number) => result >= 0 && !isRefused(result) && !isRefused(here.calls[number]))
    .length;
}
