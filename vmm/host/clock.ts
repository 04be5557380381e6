// Monotonic time in ms. Not `performance.now()`: the first touch of that global loads
// node:perf_hooks, 4 ms on the way to the first KVM_RUN.

let workBegan: [seconds: number, nanoseconds: number] | undefined;

/** This process has waited until now for what it is to do: what counts from its start counts from here. */
export function beginWork(): void {
  workBegan = process.hrtime();
}

/** CLOCK_MONOTONIC, `ns`, where the work of a process that had to wait for it began; else undefined. */
export function workBeganNs(): bigint | undefined {
  return workBegan === undefined ? undefined : BigInt(workBegan[0]) * 1_000_000_000n + BigInt(workBegan[1]);
}

/** CLOCK_MONOTONIC, `ms` from an arbitrary point. */
export function nowMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}
