// Cylinders, heads and sectors for an IDE disk of a given size: ATA-4, 6.2.1. Bochs takes only
// an image whose size is exactly their product.

export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  /** Sectors a track. */
  readonly sectors: number;
}

const SECTOR_SIZE = 512;
const MAX_HEADS = 16;
const MAX_SECTORS = 63;
/** Bochs' own limit. */
const MAX_CYLINDERS = 262_143;

/** The one with the fewest cylinders; undefined if `bytes` is no such product. */
export function diskGeometry(bytes: number): Geometry | undefined {
  const total = bytes / SECTOR_SIZE;
  if (!Number.isInteger(total) || total === 0) return undefined;
  let best: Geometry | undefined;
  for (let heads = 1; heads <= MAX_HEADS; heads++) {
    for (let sectors = 1; sectors <= MAX_SECTORS; sectors++) {
      const cylinders = total / (heads * sectors);
      if (Number.isInteger(cylinders) && cylinders < (best?.cylinders ?? MAX_CYLINDERS + 1)) {
        best = { cylinders, heads, sectors };
      }
    }
  }
  return best;
}
