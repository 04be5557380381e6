// Log lines that a guest can cause as often as it likes: at most one a second is written, the rest is counted.
import type { EventLoop } from "./event-loop.js";

const INTERVAL_MS = 1000;

export class LimitedReport {
  readonly #loop: EventLoop;
  readonly #report: (line: string) => void;
  #lastMs = -Infinity;
  #suppressed = 0;

  constructor(loop: EventLoop, report: (line: string) => void) {
    this.#loop = loop;
    this.#report = report;
  }

  line(text: string): void {
    const now = this.#loop.now();
    if (now - this.#lastMs < INTERVAL_MS) {
      this.#suppressed++;
      return;
    }
    this.#report(this.#suppressed === 0 ? text : `${text} (and ${String(this.#suppressed)} lines like it before)`);
    this.#lastMs = now;
    this.#suppressed = 0;
  }
}
