// One line on standard error for what takes longer than a moment; it goes away when it is done.
import { isatty } from "node:tty";
import { nowMs } from "./clock.js";
import { say, sayRaw } from "./say.js";

const STDERR = 2;
const SHOW_AFTER_MS = 1000;
const REFRESH_MS = 250;

export class Progress {
  readonly #startedMs: number;
  #text: string;
  readonly #timer: NodeJS.Timeout;
  readonly #isTerminal: boolean;
  #shown = false;

  /** `isTerminal`: whether the line may be drawn again and again. */
  constructor(text: string, isTerminal = isatty(STDERR), startedMs = nowMs()) {
    this.#startedMs = startedMs;
    this.#isTerminal = isTerminal;
    this.#text = text;
    this.#timer = setInterval(() => {
      this.#showLate();
    }, REFRESH_MS);
    this.#timer.unref();
  }

  /** What is being waited for now; a log gets a line each. */
  update(text: string): void {
    this.#text = text;
    if (!this.#isTerminal) this.#shown = false;
    this.#showLate();
  }

  /** Makes room for something else; the line comes back below. */
  clear(): void {
    if (this.#shown && this.#isTerminal) sayRaw("\r\x1b[K");
    if (this.#isTerminal) this.#shown = false;
  }

  done(): void {
    clearInterval(this.#timer);
    this.clear();
  }

  /** Draws the line now, however short it has taken. */
  show(): void {
    const elapsed = nowMs() - this.#startedMs;
    // Without a terminal, once is enough: a log is no place for an animation.
    if (this.#isTerminal) sayRaw(`\rvmlet: ${this.#text} … ${(elapsed / 1000).toFixed(1)} s\x1b[K`);
    else if (!this.#shown) say(`${this.#text} …`);
    this.#shown = true;
  }

  #showLate(): void {
    if (nowMs() - this.#startedMs >= SHOW_AFTER_MS) this.show();
  }
}
