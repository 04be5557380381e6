// Monotonic time in ms. Not `performance.now()`: the first touch of that global loads
// node:perf_hooks, 4 ms on the way to the first KVM_RUN.

/** CLOCK_MONOTONIC, `ms` from an arbitrary point. */
export function nowMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}
