// Walls around the monitor itself while its guest runs: vmm/machine/seal.ts.
export const JAIL_MODES = ["off", "on", "strict"] as const;
export type JailMode = (typeof JAIL_MODES)[number];
