// The threads that run vCPUs, reused from one to the next: a start costs 33 ms of a processor and 6.6 MiB. Those that
// are idle keep no process alive, and end after a while.
import { availableParallelism } from "node:os";
import type { VcpuThread } from "./vcpu-thread.js";

/** More threads than processors: those of guests that wait in HLT cost none until another guest needs one. */
const THREADS_A_PROCESSOR = 4;
const MIN_THREADS = 8;
/** What is idle for so long and more than KEPT ends, `ms`. */
const IDLE_MS = 5000;
const KEPT = 2;

export class ThreadPool {
  /** How many there may be, but for a VM that needs more at once. */
  most: number;
  readonly #create: (lost: (thread: VcpuThread) => void) => VcpuThread;
  readonly #all = new Set<VcpuThread>();
  /** The one that was used last is taken first. */
  readonly #idle: VcpuThread[] = [];
  readonly #ending = new Set<Promise<unknown>>();
  #kept = KEPT;
  /** So many were idle all the time since the timer was set. */
  #unused = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Why the last thread that is no more has ended, if it was not to. */
  problem: Error | undefined;

  constructor(
    create: (lost: (thread: VcpuThread) => void) => VcpuThread,
    most = Math.max(MIN_THREADS, THREADS_A_PROCESSOR * availableParallelism()),
  ) {
    this.#create = create;
    this.most = most;
  }

  get size(): number {
    return this.#all.size;
  }

  /** `count` threads, or none if there are not so many. Throws what a host says that gives none. */
  take(count: number): VcpuThread[] | undefined {
    const free = this.#idle.length + Math.max(0, this.most - this.#all.size);
    // A large VM has its threads once nobody else has any.
    const isAlone = this.#idle.length === this.#all.size;
    if (count > free && !isAlone) return undefined;
    try {
      return this.takeAnyway(count);
    } catch (error) {
      if (isAlone) throw error;
      // The host gives no more: those that there are have to do.
      this.most = this.#all.size;
      return undefined;
    }
  }

  takeAnyway(count: number): VcpuThread[] {
    while (this.#idle.length < count) this.#start();
    const taken = this.#idle.splice(-count);
    this.#unused = Math.min(this.#unused, this.#idle.length);
    return taken;
  }

  /** Its turn has ended, or is about to. */
  giveBack(thread: VcpuThread): void {
    if (!this.#all.has(thread) || this.#idle.includes(thread)) return;
    if (thread.isBroken) {
      void this.#end([thread]);
      return;
    }
    this.#idle.push(thread);
    this.#watch();
  }

  /** Has so many from now on, even if idle; resolves once they are ready. Throws what a host says that gives no more. */
  async warm(count: number): Promise<void> {
    this.#kept = Math.max(KEPT, count);
    this.most = Math.max(this.most, count);
    while (this.#all.size < count) this.#start();
    await this.whenReady();
  }

  /** Resolves once none of its threads is still starting, those that begin meanwhile included. */
  async whenReady(): Promise<void> {
    const known = new Set<VcpuThread>();
    for (;;) {
      const more = [...this.#all].filter((thread) => !known.has(thread));
      if (more.length === 0) return;
      for (const thread of more) known.add(thread);
      await Promise.all(more.map((thread) => thread.whenReady()));
    }
  }

  /** Ends those that are idle; resolves once they have ended, and others that were about to. */
  async endIdle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    void this.#end(this.#idle.splice(0));
    await Promise.all(this.#ending);
  }

  async #end(threads: readonly VcpuThread[]): Promise<void> {
    for (const thread of threads) this.#all.delete(thread);
    const ending = Promise.all(threads.map((thread) => thread.end()));
    this.#ending.add(ending);
    await ending;
    this.#ending.delete(ending);
  }

  #watch(): void {
    if (this.#timer !== undefined || this.#all.size <= this.#kept) return;
    this.#unused = this.#idle.length;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#end(this.#idle.splice(0, Math.min(this.#unused, Math.max(0, this.#all.size - this.#kept))));
      if (this.#idle.length > 0) this.#watch();
    }, IDLE_MS).unref();
  }

  #start(): void {
    const thread = this.#create((lost) => {
      this.#all.delete(lost);
      this.problem = lost.problem;
      const at = this.#idle.indexOf(lost);
      if (at >= 0) this.#idle.splice(at, 1);
    });
    this.#all.add(thread);
    this.#idle.unshift(thread);
  }
}
