// The threads of this process (of this thread of it, if several have VMs), and who has them.
import { Scheduler } from "./scheduler.js";
import { ThreadPool } from "./thread-pool.js";
import { VcpuThread, explainStart } from "./vcpu-thread.js";

export const pool = new ThreadPool((lost) => new VcpuThread(lost));
export const scheduler = new Scheduler(pool);
export { explainStart };

/** What ends each VM that has threads. */
export const stopsAtExit = new Set<() => void>();

// Node waits for its threads, and one in KVM_RUN hears of nothing else.
process.once("exit", () => {
  for (const stop of stopsAtExit) stop();
});
