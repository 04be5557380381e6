// The one way in which a device serves a queue: suppress, drain, publish, resume, look again. A turn of
// it is bounded, whatever the driver does meanwhile: the device shares its thread with all others.
import type { ActivationContext } from "./device.js";
import type { Queue } from "./queue.js";

/**
 * What a step has come to: "done", and there may be more; "empty", the queue holds no chain, and the
 * driver's next notification is wanted; "waiting" for somebody else, who has the queue served again.
 */
export type Step = "done" | "empty" | "waiting";

/** When a turn is over; checked between two steps. */
export interface TurnLimits {
  readonly steps: number;
  /** Of whatever the steps `spend`: bytes, pages. */
  readonly amount?: number;
  /** `ms` */
  readonly ms?: number;
}

export class Turn {
  #steps: number;
  #amount: number;
  readonly #endMs: number;
  readonly #now: (() => number) | undefined;
  #hasBegun = false;

  /** `now`: monotonic `ms`, a must for limits with `ms`. */
  constructor({ steps, amount = Infinity, ms = Infinity }: TurnLimits, now?: () => number) {
    this.#steps = steps;
    this.#amount = amount;
    this.#now = ms === Infinity ? undefined : now;
    this.#endMs = (this.#now?.() ?? 0) + ms;
  }

  get isOver(): boolean {
    if (this.#steps <= 0 || this.#amount <= 0) return true;
    // Nobody looks at the clock before the first step: a look costs as much as a small system call.
    return this.#now !== undefined && this.#hasBegun && this.#now() >= this.#endMs;
  }

  /** What is left of the amount. */
  get amount(): number {
    return this.#amount;
  }

  spend(amount: number): void {
    this.#amount -= amount;
  }

  /** Counts a step. */
  step(): void {
    this.#hasBegun = true;
    this.#steps--;
  }
}

/**
 * Has `step` take chains from the queue, as long as there are any and the turn is not over. True if a
 * later turn has to go on: what `onAvailable` answers. A queue that the driver has stopped is left
 * alone, with all that the device has taken from it and not given back.
 */
export function serveQueue(
  queue: Queue,
  context: Pick<ActivationContext, "interrupt">,
  turn: Turn,
  step: (turn: Turn) => Step,
): boolean {
  if (queue.isStopped) return false;
  do {
    queue.suppressNotifications();
    let result: Step = "done";
    while (result === "done" && !turn.isOver) {
      result = step(turn);
      turn.step();
    }
    if (queue.publishUsed()) context.interrupt(queue);
    if (result !== "empty") return result === "done";
  } while (queue.resumeNotifications());
  return false;
}
