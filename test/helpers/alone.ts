// What has failed beside other tests, once more without them: an emulated host that three processes of tests share can stand
// still for seconds, and a test that failed before may have left something in its process.
import type { Counts, Failure } from "./counts.js";

/** More than so many are no moment of a busy host. */
const MAX_AGAIN = 8;

/** The titles of the tests that are to be run again, by file; `isAlone`: of a file whose tests had the host for themselves. */
export function testsToRunAgain({ failures }: Counts, isAlone: (file: string) => boolean): Map<string, string[]> {
  const files = new Map<string, string[]>();
  if (failures.length > MAX_AGAIN) return files;
  for (const { test } of failures) {
    if (test === undefined || isAlone(test.file)) continue;
    files.set(test.file, [...(files.get(test.file) ?? []), test.title]);
  }
  return files;
}

/** `total`, with what `again` says of the tests of one file: all of them have passed, and are named, or all stay failures. */
export function withThoseAlone(total: Counts, file: string, again: Counts): Counts {
  const isOfFile = ({ test }: Failure): boolean => test?.file === file;
  const before = total.failures.filter(isOfFile);
  if (again.failed > 0 || again.passed !== before.length) return total;
  return {
    ...total,
    passed: total.passed + before.length,
    failed: total.failed - before.length,
    failures: total.failures.filter((failure) => !isOfFile(failure)),
    secondTries: [...total.secondTries, ...before.map(({ text }) => `passed alone, not beside others; it ${text}`)],
  };
}
