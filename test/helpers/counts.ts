// What a run of tests comes to.

const FAILURE_LINES = 12;
const FAILURE_COLUMNS = 200;

export interface Counts {
  passed: number;
  failed: number;
  /** What failed, and how: the last lines of a long run are what is looked at first. */
  failures: string[];
  /** What passed at its second try only, and how it had failed: to be looked into. */
  secondTries: string[];
  skipped: number;
  /** Guests that reached their init. */
  booted: number;
}

export function addCounts(all: readonly Counts[]): Counts {
  const sum = (of: "passed" | "failed" | "skipped" | "booted"): number =>
    all.reduce((total, counts) => total + counts[of], 0);
  const failures = all.flatMap((counts) => counts.failures);
  const secondTries = all.flatMap((counts) => counts.secondTries);
  const [passed, failed, skipped, booted] = [sum("passed"), sum("failed"), sum("skipped"), sum("booted")];
  return { passed, failed, failures, secondTries, skipped, booted };
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
