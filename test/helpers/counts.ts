// What a run of tests comes to.

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** Guests that reached their init. */
  booted: number;
}

export function addCounts(all: readonly Counts[]): Counts {
  const sum = (of: keyof Counts): number => all.reduce((total, counts) => total + counts[of], 0);
  return { passed: sum("passed"), failed: sum("failed"), skipped: sum("skipped"), booted: sum("booted") };
}

/** True, and said, for a run in which no guest booted: it would look green where every boot test is skipped. */
export function failsForWantOfBoot({ booted }: Counts): boolean {
  if (booted > 0) return false;
  console.log("No guest could be booted anywhere: that is a failure, whatever else has passed.");
  return true;
}

/** The last line of a run, for programs. */
export function closingLine({ passed, failed, skipped }: Counts): string {
  return `${String(passed)} passed, ${String(failed)} failed, ${String(skipped)} skipped`;
}
