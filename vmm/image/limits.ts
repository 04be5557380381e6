// How much of an image is taken. Whoever builds an image decides how long it is: a file of kilobytes can unpack to
// terabytes, and name millions of files.
import type { ImageLimits } from "./types.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

export const DEFAULT_LIMITS: ImageLimits = {
  layerBytes: 64 * GIB,
  // A desktop distribution has 300,000; each takes some 500 bytes of this process while it is unpacked.
  entries: 1_000_000,
  metadataBytes: 256 * MIB,
  // gzip comes to 1,032 at most, of zeroes; programs and texts to 10.
  ratio: 400,
  ratioFromBytes: GIB,
  jsonBytes: 8 * MIB,
  // The disk's list takes 256, of which one is the file system's own.
  layers: 255,
  cacheBytes: 50 * GIB,
};

/** linux/limits.h: NAME_MAX, PATH_MAX less its end. */
export const MAX_NAME_BYTES = 255;
export const MAX_PATH_BYTES = 4095;
