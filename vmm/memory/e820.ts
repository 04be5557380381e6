// RAM size -> E820 entries, as a BIOS would report them. Linux/x86 boot protocol, e820_table.
import { EBDA_GPA, HIGH_MEMORY_GPA, HIGH_RAM_GPA, MMIO_HOLE_GPA } from "./layout.js";

export const E820_TYPE_RAM = 1;
export const E820_TYPE_RESERVED = 2;

export interface E820Entry {
  readonly gpa: number;
  /** `bytes` */
  readonly size: number;
  readonly type: typeof E820_TYPE_RAM | typeof E820_TYPE_RESERVED;
}

/** Entries in ascending order for `memorySize` bytes of RAM; `ecam`: where configuration space of PCI lies, if there is a bus. */
export function e820Entries(memorySize: number, ecam?: { readonly gpa: number; readonly length: number }): E820Entry[] {
  const lowEnd = Math.min(memorySize, MMIO_HOLE_GPA);
  const entries: E820Entry[] = [
    { gpa: 0, size: EBDA_GPA, type: E820_TYPE_RAM },
    { gpa: EBDA_GPA, size: HIGH_RAM_GPA - EBDA_GPA, type: E820_TYPE_RESERVED },
    { gpa: HIGH_RAM_GPA, size: lowEnd - HIGH_RAM_GPA, type: E820_TYPE_RAM },
  ];
  // Linux believes in it only where it is reserved.
  if (ecam !== undefined) entries.push({ gpa: ecam.gpa, size: ecam.length, type: E820_TYPE_RESERVED });
  if (memorySize > lowEnd) entries.push({ gpa: HIGH_MEMORY_GPA, size: memorySize - lowEnd, type: E820_TYPE_RAM });
  return entries;
}
