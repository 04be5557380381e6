// Where the initrd goes: as high as the kernel allows, away from the kernel.
import { KernelImageError } from "../errors.js";
import { MMIO_HOLE_GPA, MIB, PAGE_SIZE } from "../memory/layout.js";

export interface InitrdRange {
  readonly gpa: number;
  /** `bytes` */
  readonly size: number;
}

/**
 * Top of RAM below the MMIO hole and below `addrMax`, page-aligned. `kernelEnd` is the first
 * address that the kernel leaves free.
 */
export function placeInitrd(
  path: string,
  size: number,
  memorySize: number,
  kernelEnd: number,
  addrMax: number,
): InitrdRange {
  const top = Math.min(memorySize, MMIO_HOLE_GPA, addrMax + 1);
  const gpa = Math.floor((top - size) / PAGE_SIZE) * PAGE_SIZE;
  if (gpa < kernelEnd) {
    const room = Math.max(0, top - kernelEnd);
    throw new KernelImageError(
      `${path}: an initrd of ${String(size)} bytes does not fit into the ${String(room)} bytes left beside the kernel`,
      { cure: `give the guest at least ${String(Math.ceil((kernelEnd + size + PAGE_SIZE) / MIB))} MiB: --memory` },
    );
  }
  return { gpa, size };
}
