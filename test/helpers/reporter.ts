// mocha's "spec" output, the reason of every skip, a sign of life of every long test, and one last line for
// programs: "N passed, N failed, N skipped". With need-boot=1, a run that booted no guest fails. With announce=1
// each test is named when it begins, and which of how many it is. With state=FILE the numbers go there
// instead, with what runs now: helpers/lane.ts adds up those of several processes, and ends what hangs.
import mocha from "mocha";
import { relative } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { bootedGuests } from "./booted.js";
import { closingLine, failsForWantOfBoot, failureLines, type Counts, type Failure } from "./counts.js";
import { LaneReport } from "./lane-report.js";
import { runningDetail } from "./running.js";
import { skipReason } from "./skip.js";

const {
  EVENT_HOOK_BEGIN,
  EVENT_HOOK_END,
  EVENT_RUN_END,
  EVENT_TEST_BEGIN,
  EVENT_TEST_END,
  EVENT_TEST_FAIL,
  EVENT_TEST_PENDING,
  EVENT_TEST_RETRY,
} = mocha.Runner.constants;

/** A test that runs for longer is said to be running, and again each time that it has lasted so long, `ms`; still-running=MS. */
const STILL_RUNNING_MS = 20_000;
/** After the last test, for what is still open, `ms`: idle threads end by themselves. */
const LEAVES_AFTER_MS = 10_000;

interface Options {
  readonly "need-boot"?: unknown;
  readonly announce?: unknown;
  readonly "still-running"?: string;
  readonly state?: string;
}

class VmletReporter extends mocha.reporters.Spec {
  constructor(runner: mocha.Runner, options: mocha.MochaOptions) {
    super(runner, options);
    const { "need-boot": needBoot, announce, state: stateFile, ...rest } = (options.reporterOptions ?? {}) as Options;
    const stillRunningMs = Number(rest["still-running"] ?? STILL_RUNNING_MS);
    const failed: Failure[] = [];
    const retried: string[] = [];
    const files: Record<string, number> = {};
    const countsNow = (): Counts => {
      const { passes = 0, failures = 0, pending = 0 } = runner.stats ?? {};
      return {
        passed: passes,
        failed: Math.max(failures, runner.failures),
        failures: failed,
        secondTries: retried,
        skipped: pending,
        booted: bootedGuests(),
        files,
      };
    };
    const report = stateFile === undefined ? undefined : new LaneReport(stateFile, countsNow);
    // Limits in tests are for a usual host; hooks of "each" come by again and are stretched once.
    const stretched = new WeakSet<mocha.Runnable>();
    let stillRunning: NodeJS.Timeout | undefined;
    const begin = (runnable: mocha.Runnable): void => {
      clearInterval(stillRunning);
      const started = performance.now();
      stillRunning = setInterval(() => {
        const seconds = Math.floor((performance.now() - started) / 1000);
        const detail = runningDetail();
        console.log(
          `      … ${runnable.title}: running for ${String(seconds)} s${detail === undefined ? "" : `; ${detail}`}`,
        );
      }, stillRunningMs).unref();
      if (!stretched.has(runnable) && runnable.timeout() !== 0) {
        stretched.add(runnable);
        runnable.timeout(timeLimit(runnable.title, runnable.timeout()));
      }
      report?.begin(runnable);
    };
    const end = (): void => {
      clearInterval(stillRunning);
      report?.end();
    };
    let begun = 0;
    runner.on(EVENT_TEST_BEGIN, (test) => {
      begun++;
      if (announce !== undefined) console.log(`      … ${String(begun)} of ${String(runner.total)}: ${test.title}`);
      begin(test);
    });
    runner.on(EVENT_HOOK_BEGIN, begin);
    runner.on(EVENT_TEST_END, end);
    runner.on(EVENT_HOOK_END, end);
    runner.on(EVENT_TEST_FAIL, (test: mocha.Test | mocha.Hook, error: unknown) => {
      const text = failureLines(test.fullTitle(), error);
      const { type, file } = test as { readonly type?: string; readonly file?: string };
      const isTest = type === "test" && file !== undefined;
      failed.push({ text, ...(isTest ? { test: { file, title: test.fullTitle() } } : {}) });
    });
    runner.on(EVENT_TEST_RETRY, (test: mocha.Test, error: unknown) => {
      end();
      retried.push(failureLines(test.fullTitle(), error, "at its second try"));
      console.log(`      once more: ${test.title}`);
    });
    let lastEnd = performance.now();
    const account = (test: mocha.Test): void => {
      const file = relative("build/test", test.file ?? "").replace(/js$/, "ts");
      const now = performance.now();
      files[file] = (files[file] ?? 0) + now - lastEnd;
      lastEnd = now;
    };
    runner.on(EVENT_TEST_END, account);
    runner.on(EVENT_TEST_PENDING, (test) => {
      console.log(`      skipped: ${skipReason(test)}`);
    });
    runner.on(EVENT_RUN_END, () => {
      end();
      const counts = countsNow();
      report?.complete();
      setTimeout(() => {
        leave(report, retried);
      }, LEAVES_AFTER_MS).unref();
      if (report !== undefined) return;
      if (needBoot !== undefined && failsForWantOfBoot(counts)) {
        runner.failures++;
        counts.failed++;
      }
      console.log(closingLine(counts));
    });
  }
}

/** Something that a test has left keeps the process alive, as a test that failed at its first try may: said, not waited for. */
function leave(report: LaneReport | undefined, secondTries: string[]): void {
  const left = process.getActiveResourcesInfo().join(", ");
  const line = `left behind by a test: ${left}`;
  console.log(line);
  secondTries.push(line);
  report?.complete();
  process.exit();
}

// mocha takes a reporter module's export as the class itself.
export { VmletReporter as default };
