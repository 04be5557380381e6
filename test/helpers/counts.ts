// What a run of tests comes to.

const FAILURE_LINES = 12;
const FAILURE_COLUMNS = 200;
const SLOWEST_FILES = 5;

export interface Failure {
  /** What failed, and how: the last lines of a long run are what is looked at first. */
  readonly text: string;
  /** Of a test that has failed by itself; not of a hook, nor of a process that ended. */
  readonly test?: { readonly file: string; readonly title: string };
}

export interface Counts {
  passed: number;
  failed: number;
  failures: Failure[];
  /** What passed at its second try only, and how it had failed: to be looked into. */
  secondTries: string[];
  skipped: number;
  /** Guests that reached their init. */
  booted: number;
  /** How long the tests of each file took, with their hooks, `ms`. */
  files: Record<string, number>;
}

export function addCounts(all: readonly Counts[]): Counts {
  const sum = (of: "passed" | "failed" | "skipped" | "booted"): number =>
    all.reduce((total, counts) => total + counts[of], 0);
  const failures = all.flatMap((counts) => counts.failures);
  const secondTries = all.flatMap((counts) => counts.secondTries);
  const [passed, failed, skipped, booted] = [sum("passed"), sum("failed"), sum("skipped"), sum("booted")];
  return { passed, failed, failures, secondTries, skipped, booted, files: addTimes(all) };
}

function addTimes(all: readonly Counts[]): Record<string, number> {
  const files: Record<string, number> = {};
  for (const [file, ms] of all.flatMap((counts) => Object.entries(counts.files))) files[file] = (files[file] ?? 0) + ms;
  return files;
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;

/** So that growth is seen: how long each process ran, and the files that took longest. */
export function timeLines(lanes: readonly { readonly name: string; readonly ms: number }[], total: Counts): string[] {
  const slowest = Object.entries(total.files)
    .sort(([, a], [, b]) => b - a)
    .slice(0, SLOWEST_FILES);
  return [
    ...lanes.map(({ name, ms }) => `${seconds(ms)}: ${name}`),
    `slowest files: ${slowest.map(([file, ms]) => `${file} ${seconds(ms)}`).join(", ")}`,
  ];
}

/** True, and said, for a run in which no guest booted: it would look green where every boot test is skipped. */
export function failsForWantOfBoot({ booted }: Counts): boolean {
  if (booted > 0) return false;
  console.log("No guest could be booted anywhere: that is a failure, whatever else has passed.");
  return true;
}

/** A failure in few lines, for the end of a run: the whole of it stands where it happened. */
export function failureLines(title: string, error: unknown, what = "failed"): string {
  const message = error instanceof Error ? error.message : String(error);
  const lines = message.split("\n").filter((line) => line.trim() !== "");
  const shown = lines.slice(0, FAILURE_LINES).map((line) => `    ${line.slice(0, FAILURE_COLUMNS)}`);
  return [`${what}: ${title}`, ...shown].join("\n");
}

/** The last line of a run, for programs. */
export function closingLine({ passed, failed, skipped }: Counts): string {
  return `${String(passed)} passed, ${String(failed)} failed, ${String(skipped)} skipped`;
}
