// How long this process's event loop is kept from a timer at most. Processor time of this thread is counted: on a busy host a
// clock would count others' work, too.
import { hostSlowness } from "../../vmm/host/time-limit.js";
import { lazy } from "../../vmm/sys/koffi.js";

/** On a usual host, processor time, `ms`. */
const LONGEST_BLOCK_MS = 10;
/** time.h */
const CLOCK_THREAD_CPUTIME_ID = 3;
const nativeClock = lazy("clock_gettime", "int", ["int", "void *"]);
const timespec = new BigInt64Array(2);

function usedMs(): number {
  // SAFETY: two words of eight bytes each are written during this call only. clock_gettime(2).
  nativeClock(CLOCK_THREAD_CPUTIME_ID, timespec);
  const [seconds = 0n, nanoseconds = 0n] = timespec;
  return Number(seconds) * 1000 + Number(nanoseconds) / 1e6;
}

/** `ms` between two turns of a timer while `task` runs. */
export async function longestBlock(task: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let last = usedMs();
  const turn = (): void => {
    const now = usedMs();
    longest = Math.max(longest, now - last);
    last = usedMs();
  };
  const timer = setInterval(turn, 1);
  try {
    await task();
  } finally {
    clearInterval(timer);
    turn();
  }
  return longest;
}

/** What an event loop may be kept from its timers on this host, `ms`. */
export function longestBlockMs(): number {
  return LONGEST_BLOCK_MS * hostSlowness();
}
