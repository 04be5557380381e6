// An event loop whose turns and time pass when a test says so.
import type { EventLoop } from "../../devices/virtio/event-loop.js";

interface Timer {
  readonly dueMs: number;
  readonly task: () => void;
}

export class FakeLoop implements EventLoop {
  #nowMs = 0;
  #deferred: (() => void)[] = [];
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#nowMs;
  }

  defer(task: () => void): void {
    this.#deferred.push(task);
  }

  after(delayMs: number, task: () => void): () => void {
    const timer = { dueMs: this.#nowMs + delayMs, task };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  /** One turn: what was deferred before it began. True if anything was. */
  turn(): boolean {
    const tasks = this.#deferred;
    this.#deferred = [];
    for (const task of tasks) task();
    return tasks.length > 0;
  }

  /** Turns until nothing is left; returns how many there were. */
  settle(limit = 100_000): number {
    for (let turns = 0; turns < limit; turns++) if (!this.turn()) return turns;
    throw new Error(`Still busy after ${String(limit)} turns`);
  }

  /** Lets `ms` pass and runs what became due, in order. */
  advance(ms: number): void {
    const end = this.#nowMs + ms;
    for (let runs = 0; ; runs++) {
      if (runs > 100_000) throw new Error("A timer sets itself again without time passing");
      const due = [...this.#timers].filter(({ dueMs }) => dueMs <= end).sort((a, b) => a.dueMs - b.dueMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.dueMs);
      due.task();
    }
    this.#nowMs = end;
  }
}
