/** Time and later turns on the thread that owns the devices; a service of the monitor. */
export interface EventLoop {
  /** Monotonic `ms`, with a fraction. */
  now(): number;
  /** Runs `task` in a later turn, after whatever else waits for the thread. */
  defer(task: () => void): void;
  /** Runs `task` once, `delayMs` from now; calling the result cancels it. */
  after(delayMs: number, task: () => void): () => void;
}
