// Which processor a lab's host has: one with AMD-V, or one with VT-x.

export const LAB_CPUS = ["amd", "intel"] as const;
export type LabCpu = (typeof LAB_CPUS)[number];
