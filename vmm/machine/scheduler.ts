// Which VMs have threads: as long as there are enough, every one that runs. When others wait, a VM is asked to rest:
// if all its vCPUs wait in HLT it is parked until an interrupt is raised or a timer is due; if not, it goes on until its
// slice is over. All vCPUs of a VM have threads or none has: one could else wait for an interrupt that another, which
// does not run, is to answer. DESIGN.md, "Threads".
import type { NextEvent } from "../kvm/next-event.js";
import type { ThreadPool } from "./thread-pool.js";
import type { VcpuThread } from "./vcpu-thread.js";

/** A VM that could go on keeps its threads for so long when others wait, `ms`. */
export const SLICE_MS = 10;
/** On a busy host vCPUs take long to rest: a slice is at least so many times as long as that took of late. */
const SLICE_RESTS = 10;
const MAX_SLICE_MS = 100;
/** How much the last time counts. */
const REST_WEIGHT = 0.2;
/** It is first asked whether it waits after so long, then after four times as long, and so on: each costs an exit. */
const FIRST_LOOK_MS = 1;
const LOOK_FACTOR = 4;
/**
 * A parked VM is run after so long although nothing is due, then after four times as long, and so on: what KVM does not
 * show, such as a timer that was just over, is late and not lost.
 */
const FIRST_POLL_MS = 2;
const POLL_FACTOR = 4;
const LAST_POLL_MS = 5000;
/** What setTimeout takes. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** A VM as the scheduler sees it. */
export interface Runnable {
  readonly vcpus: number;
  /** None of its vCPUs is on a thread any more. */
  readonly isClear: boolean;
  /** One thread for each vCPU. */
  run(threads: readonly VcpuThread[]): void;
  /** Every vCPU is to rest; `Scheduler.rested` comes then. */
  askToRest(): void;
  /** It goes on with the threads that it has. */
  goOn(): void;
  /** Takes the threads from it, which rests. */
  release(): readonly VcpuThread[];
  /** What it waits for, while it rests. */
  nextEvent(): NextEvent;
  /** Nothing can wake it. */
  haltedForEver(): void;
  failed(error: unknown): void;
}

interface Entry {
  readonly vm: Runnable;
  state: "waiting" | "running" | "asked" | "parked";
  /** Has run since then, `ms` of performance.now(). */
  since: number;
  /** It is asked then, if others wait; and has been asked, if it is. */
  lookAt: number;
  /** It is to run again then. */
  dueAt: number;
  pollMs: number;
  /** An interrupt was raised since it was asked. */
  wasRaised: boolean;
}

export class Scheduler {
  readonly #pool: ThreadPool;
  readonly #entries = new Map<Runnable, Entry>();
  /** Those that wait for threads, the first first. */
  #queue: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Infinity;
  #isServing = false;
  /** How long vCPUs take from being asked to being seen at rest, `ms`. */
  #restMs = 0;

  constructor(pool: ThreadPool) {
    this.#pool = pool;
  }

  /** It is to run; one whose vCPUs all wait in HLT takes no threads for that, unless an interrupt was raised. */
  add(vm: Runnable, wasRaised = false): void {
    const entry = this.#enter(vm);
    if (entry === undefined) return;
    this.#park(entry, wasRaised ? 0 : vm.nextEvent());
    this.#serve();
  }

  /** It runs already, on threads of the pool. */
  adopt(vm: Runnable): void {
    const entry = this.#enter(vm);
    if (entry === undefined) return;
    this.#begin(entry);
    this.#serve();
  }

  /** It has ended, or is paused: it has no threads, or gives them back itself. */
  remove(vm: Runnable): void {
    const entry = this.#entries.get(vm);
    if (entry === undefined) return;
    this.#entries.delete(vm);
    this.#queue = this.#queue.filter((other) => other !== entry);
    this.#serve();
  }

  /** An interrupt was raised; false if that VM is not here. */
  wake(vm: Runnable): boolean {
    const entry = this.#entries.get(vm);
    if (entry === undefined) return false;
    entry.wasRaised = true;
    entry.pollMs = FIRST_POLL_MS;
    if (entry.state !== "parked") return true;
    this.#wait(entry);
    this.#serve();
    return true;
  }

  /** All vCPUs of one that was asked rest. */
  rested(vm: Runnable): void {
    const entry = this.#entries.get(vm);
    if (entry?.state !== "asked") return;
    const now = performance.now();
    const next = entry.wasRaised ? 0 : vm.nextEvent();
    this.#restMs += REST_WEIGHT * (now - entry.lookAt - this.#restMs);
    const hadMs = now - entry.since;
    const sliceMs = this.#sliceMs;
    // Those that waited may have got others' threads meanwhile.
    if (this.#queue.length === 0 || (next === 0 && hadMs < sliceMs)) {
      entry.state = "running";
      if (hadMs >= sliceMs) entry.since = now;
      entry.lookAt = hadMs >= sliceMs ? now + FIRST_LOOK_MS : entry.since + Math.min(LOOK_FACTOR * hadMs, sliceMs);
      vm.goOn();
    } else {
      for (const thread of vm.release()) this.#pool.giveBack(thread);
      if (next === 0) this.#wait(entry);
      else this.#park(entry, next);
    }
    this.#serve();
  }

  /** A VM is clear, or a thread has come back. */
  serve(): void {
    this.#serve();
  }

  get #sliceMs(): number {
    return Math.min(Math.max(SLICE_MS, SLICE_RESTS * this.#restMs), MAX_SLICE_MS);
  }

  /** Undefined if it is there already. */
  #enter(vm: Runnable): Entry | undefined {
    if (this.#entries.has(vm)) return undefined;
    const times = { since: 0, lookAt: 0, dueAt: Infinity, pollMs: FIRST_POLL_MS };
    const entry: Entry = { vm, state: "parked", ...times, wasRaised: false };
    this.#entries.set(vm, entry);
    return entry;
  }

  #begin(entry: Entry): void {
    const now = performance.now();
    Object.assign(entry, { state: "running", since: now, lookAt: now + FIRST_LOOK_MS, wasRaised: false });
  }

  #park(entry: Entry, next: NextEvent): void {
    if (next === "never") {
      entry.state = "parked";
      entry.dueAt = Infinity;
      entry.vm.haltedForEver();
      return;
    }
    if (next === 0) {
      this.#wait(entry);
      return;
    }
    entry.state = "parked";
    const inMs = Math.min(entry.pollMs, next === "interrupt" ? Infinity : next);
    if (inMs === entry.pollMs) entry.pollMs = Math.min(POLL_FACTOR * entry.pollMs, LAST_POLL_MS);
    else entry.pollMs = FIRST_POLL_MS;
    entry.dueAt = performance.now() + inMs;
  }

  #wait(entry: Entry): void {
    entry.state = "waiting";
    this.#queue.push(entry);
  }

  /** Gives threads to those that wait, in their order, and has others asked for theirs. */
  #serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    try {
      this.#giveThreads();
      if (this.#queue.length > 0) this.#askOthers();
      this.#setTimer();
    } finally {
      this.#isServing = false;
    }
  }

  #giveThreads(): void {
    for (;;) {
      const at = this.#queue.findIndex(({ vm }) => vm.isClear);
      const entry = this.#queue[at];
      if (entry === undefined) return;
      let threads: VcpuThread[] | undefined;
      try {
        threads = this.#pool.take(entry.vm.vcpus);
      } catch (error) {
        this.#queue.splice(at, 1);
        this.#entries.delete(entry.vm);
        entry.vm.failed(error);
        continue;
      }
      if (threads === undefined) return;
      this.#queue.splice(at, 1);
      this.#begin(entry);
      entry.vm.run(threads);
    }
  }

  /** As many as those that wait need, those that have run longest first. */
  #askOthers(): void {
    const now = performance.now();
    const entries = [...this.#entries.values()];
    const vcpusOf = (list: readonly Entry[]): number => list.reduce((sum, { vm }) => sum + vm.vcpus, 0);
    let wanted = vcpusOf(this.#queue) - vcpusOf(entries.filter(({ state }) => state === "asked"));
    const ready = entries.filter(({ state, lookAt }) => state === "running" && lookAt <= now);
    for (const entry of ready.sort((a, b) => a.since - b.since)) {
      if (wanted <= 0) return;
      wanted -= entry.vm.vcpus;
      entry.state = "asked";
      entry.lookAt = now;
      entry.wasRaised = false;
      entry.vm.askToRest();
    }
  }

  /** One timer for all: the next parked VM that is due, or the next one to be asked. */
  #setTimer(): void {
    let at = Infinity;
    for (const { state, dueAt, lookAt } of this.#entries.values()) {
      if (state === "parked") at = Math.min(at, dueAt);
      else if (state === "running" && this.#queue.length > 0) at = Math.min(at, lookAt);
    }
    if (at === this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    if (at === Infinity) return;
    const delayMs = Math.min(Math.max(0, at - performance.now()), MAX_DELAY_MS);
    // The VMs' doorbells keep the process alive.
    this.#timer = setTimeout(() => this.#timeIsUp(), Math.ceil(delayMs)).unref();
  }

  #timeIsUp(): void {
    this.#timerAt = Infinity;
    const now = performance.now();
    for (const entry of this.#entries.values()) if (entry.state === "parked" && entry.dueAt <= now) this.#wait(entry);
    this.#serve();
  }
}
