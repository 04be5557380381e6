// mocha's "spec" output, the reason of every skip, and one last line for programs:
// "N passed, N failed, N skipped". With need-boot=1, a run that booted no guest fails.
import mocha from "mocha";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { bootedGuests } from "./booted.js";
import { skipReason } from "./skip.js";

const { EVENT_HOOK_BEGIN, EVENT_RUN_END, EVENT_TEST_BEGIN, EVENT_TEST_PENDING } = mocha.Runner.constants;

class VmletReporter extends mocha.reporters.Spec {
  constructor(runner: mocha.Runner, options: mocha.MochaOptions) {
    super(runner, options);
    const { "need-boot": needBoot } = (options.reporterOptions ?? {}) as { "need-boot"?: unknown };
    // Limits in tests are for a usual host; hooks of "each" come by again and are stretched once.
    const stretched = new WeakSet<mocha.Runnable>();
    const stretch = (runnable: mocha.Runnable): void => {
      if (stretched.has(runnable) || runnable.timeout() === 0) return;
      stretched.add(runnable);
      runnable.timeout(timeLimit(runnable.title, runnable.timeout()));
    };
    runner.on(EVENT_TEST_BEGIN, stretch);
    runner.on(EVENT_HOOK_BEGIN, stretch);
    runner.on(EVENT_TEST_PENDING, (test) => {
      console.log(`      skipped: ${skipReason(test)}`);
    });
    runner.on(EVENT_RUN_END, () => {
      const { passes = 0, failures = 0, pending = 0 } = runner.stats ?? {};
      if (needBoot !== undefined && bootedGuests() === 0) {
        console.log("No guest could be booted anywhere: that is a failure, whatever else has passed.");
        runner.failures++;
      }
      const failed = Math.max(failures, runner.failures);
      console.log(`${String(passes)} passed, ${String(failed)} failed, ${String(pending)} skipped`);
    });
  }
}

// mocha takes a reporter module's export as the class itself.
export { VmletReporter as default };
