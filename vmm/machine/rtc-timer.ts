// The real-time clock's interrupts, on the thread that owns the VM: a timer for the next one that the guest wants.
import type { InterruptLine, SharedWords } from "../../devices/contracts.js";
import { RtcInterrupts } from "../../devices/legacy/rtc-interrupts.js";
import { RTC_CHANGED } from "../../devices/legacy/rtc-registers.js";

/** A guest may want 8,192 a second: it gets no more than this thread can give and do its other work, `ms`. */
const SHORTEST_MS = 1;

export class RtcTimer {
  readonly #words: SharedWords;
  readonly #line: InterruptLine;
  /** Made when the guest first wants an interrupt: few do. */
  #interrupts: RtcInterrupts | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(words: SharedWords, line: InterruptLine) {
    this.#words = words;
    this.#line = line;
  }

  /** Call when the doorbell rings; nothing to do unless the guest has changed the registers. */
  service(): void {
    if (Atomics.exchange(this.#words, RTC_CHANGED, 0) === 0) return;
    const now = Date.now();
    if (this.#interrupts === undefined) this.#interrupts = new RtcInterrupts(this.#words, now);
    else this.#interrupts.restart(now);
    this.#schedule();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#interrupts = undefined;
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const delay = this.#interrupts?.nextMs(Date.now());
    if (delay === undefined) return;
    this.#timer = setTimeout(
      () => {
        if (this.#interrupts?.raise(Date.now()) === true) this.#line.trigger();
        this.#schedule();
      },
      Math.max(SHORTEST_MS, delay),
    ).unref();
  }
}
