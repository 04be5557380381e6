// Time limits on a host that is slow. Each limit was chosen on one machine when it was idle; where
// the host turns out to be slower, by its own clock and now, the limit grows with that, and says so once.
import { say as sayLine } from "./say.js";

/** Iterations of the loop, and what a turn took on the machine that the limits were chosen on, `ms`. */
const TURN = 2_000_000;
const USUAL_TURN_MS = 2;
/** An odd number: the middle one counts. The first compiles the loop. */
const TURNS = 7;
/** Guest kernel instructions a second on the software KVM that the limits were chosen on, in millions. */
const USUAL_MIPS = 1.6;
/** Less than this is noise ... */
const WORTH_A_WORD = 1.5;
/** ... and so is a wait that is over before a person would ask, `ms`. */
const LONG_MS = 10_000;

function turnMs(): number {
  const started = performance.now();
  let value = 1;
  for (let i = 0; i < TURN; i++) value = (Math.imul(value, 1_664_525) + 1_013_904_223) | 0;
  // The result is used, so that no compiler leaves the loop out.
  return performance.now() - started + (value === 0 ? Number.EPSILON : 0);
}

let measured: number | undefined;

/** How many times slower than usual this process gets on, 1 or more; measured once, in some 15 ms on a usual host. */
export function hostSlowness(): number {
  measured ??= slownessOf(Array.from({ length: TURNS }, turnMs));
  return measured;
}

/** From the times of some turns, `ms`: the middle one, against the usual. */
export function slownessOf(turns: readonly number[]): number {
  const middle = turns.toSorted((a, b) => a - b)[Math.floor(turns.length / 2)] ?? USUAL_TURN_MS;
  return Math.max(1, middle / USUAL_TURN_MS);
}

/** The same for a guest's kernel, from the speed that the probe has measured in million instructions a second. */
export function guestSlowness(mips: number): number {
  return Math.max(1, USUAL_MIPS / mips);
}

let hasSpoken = false;

/** For a process whose standard error is a guest's program's: limits are stretched without a word. */
export function stretchInSilence(): void {
  hasSpoken = true;
}

/** `usualMs`, or more where the host is slower; says so the first time that it makes somebody wait. `what` as in "the lab's start". */
export function timeLimit(
  what: string,
  usualMs: number,
  slowness: number = hostSlowness(),
  say: (line: string) => void = sayLine,
): number {
  if (slowness < WORTH_A_WORD) return usualMs;
  const limit = Math.ceil((usualMs * slowness) / 100) * 100;
  if (!hasSpoken && limit >= LONG_MS) {
    hasSpoken = true;
    const times = slowness.toFixed(1);
    const seconds = (ms: number): string => String(Math.round(ms / 1000));
    say(
      `this host is ${times} times slower than usual: ${what} may take ${seconds(limit)} s, not ${seconds(usualMs)} s`,
    );
  }
  return limit;
}

/** Calls back once the time is over; only then it asks how slow this host is. The result calls it off. */
export function afterLimit(what: string, usualMs: number, over: (limitMs: number) => void): () => void {
  const started = performance.now();
  let timer = setTimeout(() => {
    const limitMs = timeLimit(what, usualMs);
    timer = setTimeout(
      () => {
        over(limitMs);
      },
      Math.max(0, limitMs - (performance.now() - started)),
    );
    timer.unref();
  }, usualMs);
  timer.unref();
  return () => {
    clearTimeout(timer);
  };
}
