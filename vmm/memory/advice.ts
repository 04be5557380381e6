// How much memory a guest would need, for messages: advice that is followed must help.
import { MAX_MEMORY_MIB } from "../config/defaults.js";
import { HIGH_MEMORY_GPA, MIB, MMIO_HOLE_GPA } from "./layout.js";

/** `MiB` over what is needed at least: the kernel wants some for itself. */
const SPARE_MIB = 16;

/** `MiB` of RAM of a guest that has `length` bytes at `gpa`; undefined if no size has. */
export function memoryMibFor(gpa: number, length: number): number | undefined {
  const end = gpa + length;
  // Above the hole, RAM goes on where it stopped below.
  const bytes = end <= MMIO_HOLE_GPA ? end : gpa >= HIGH_MEMORY_GPA ? end - (HIGH_MEMORY_GPA - MMIO_HOLE_GPA) : NaN;
  const least = Math.ceil(bytes / MIB);
  return least <= MAX_MEMORY_MIB ? Math.min(least + SPARE_MIB, MAX_MEMORY_MIB) : undefined;
}
