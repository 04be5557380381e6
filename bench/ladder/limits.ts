// What every instance may use, and how long one start may take.

/** The same for all that have limits: what a small guest has. */
export const MEMORY_MIB = 128;
export const CPUS = 1;

/** One start of a rung that shares the host's kernel, `ms`. */
export const CONTAINER_TIMEOUT_MS = 20_000;
/** One boot where kernel code is emulated and the machine is busy, `ms`. */
export const VM_TIMEOUT_MS = 120_000;
