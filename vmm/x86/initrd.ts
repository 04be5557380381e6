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
  const limit = Math.min(MMIO_HOLE_GPA, addrMax + 1);
  const top = Math.min(memorySize, limit);
  const gpa = pageBelow(top - size);
  if (gpa < kernelEnd) {
    const room = Math.max(0, top - kernelEnd);
    const problem = `${path}: an initrd of ${String(size)} bytes does not fit into the ${String(room)} bytes left beside the kernel`;
    if (pageBelow(limit - size) < kernelEnd) {
      throw new KernelImageError(`${problem}, and this kernel takes none above 0x${limit.toString(16)}`, {
        cure: "make it smaller, or put its files on a disk: --disk",
      });
    }
    const mib = Math.ceil((pageBelow(kernelEnd + PAGE_SIZE - 1) + size) / MIB);
    throw new KernelImageError(problem, { cure: `give the guest more memory: --memory ${String(mib)} at least` });
  }
  return { gpa, size };
}

function pageBelow(gpa: number): number {
  return Math.floor(gpa / PAGE_SIZE) * PAGE_SIZE;
}
