// How large a lab is that runs one guest.
import type { MachineSize } from "./emulator.js";

/** What the lab itself needs in addition to the guest's memory, `MiB`: kernel, Node, page cache. */
const LAB_OWN_MIB = 640;
const MIN_CPUS = 2;
const MAX_CPUS = 8;

export function labFor({ memoryMib, cpus }: MachineSize): MachineSize {
  return { memoryMib: LAB_OWN_MIB + memoryMib, cpus: Math.max(MIN_CPUS, Math.min(cpus + 1, MAX_CPUS)) };
}
