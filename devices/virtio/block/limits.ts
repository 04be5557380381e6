// What one request to a disk may ask for. The device works on the thread that serves the whole
// machine, so every limit here is also one on how long a request may hold it.
import { SECTOR_SIZE } from "./constants.js";

/** Descriptors of the request queue. */
export const BLOCK_QUEUE_SIZE = 256;

export interface BlockLimits {
  /** Data segments of a request: the queue's size less header and status. */
  readonly segments: number;
  /** `bytes` of a segment. */
  readonly segmentBytes: number;
  /** `bytes` of data of a request. */
  readonly requestBytes: number;
  /** Ranges of a DISCARD or WRITE_ZEROES. */
  readonly ranges: number;
  /** Sectors of a range. A discard costs the host little that grows with it ... */
  readonly discardSectors: number;
  /** ... but zeroes may have to be written where the file system knows no better: by other threads, in pieces. */
  readonly writeZeroesSectors: number;
}

const SEGMENTS = BLOCK_QUEUE_SIZE - 2;
const SEGMENT_BYTES = 256 * 1024;

export const BLOCK_LIMITS: BlockLimits = {
  segments: SEGMENTS,
  segmentBytes: SEGMENT_BYTES,
  requestBytes: SEGMENTS * SEGMENT_BYTES,
  ranges: 16,
  discardSectors: (2 * 1024 ** 3) / SECTOR_SIZE,
  writeZeroesSectors: (32 * 1024 ** 2) / SECTOR_SIZE,
};
