// Limits on what waits for the guest. They stand still while the guest does.
import { afterLimit } from "../host/time-limit.js";

export class TimeLimits {
  #isHeld = false;
  /** How often they have been let go on: what was under way before that begins anew. */
  #turns = 0;
  readonly #running = new Set<() => void>();

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** While the guest is paused nothing of it is late. */
  set isHeld(isHeld: boolean) {
    if (this.#isHeld && !isHeld) this.#turns++;
    this.#isHeld = isHeld;
  }

  /** Calls back once the time is over, longer on a slow host; the result calls it off. */
  after(what: string, usualMs: number, over: (limitMs: number) => void): () => void {
    let callOff = (): void => undefined;
    const arm = (): void => {
      const turns = this.#turns;
      callOff = afterLimit(what, usualMs, (limitMs) => {
        if (this.#isHeld || this.#turns !== turns) {
          arm();
          return;
        }
        this.#running.delete(end);
        over(limitMs);
      });
    };
    const end = (): void => {
      this.#running.delete(end);
      callOff();
    };
    arm();
    this.#running.add(end);
    return end;
  }

  /** Calls all off. */
  clear(): void {
    for (const end of [...this.#running]) end();
  }
}
