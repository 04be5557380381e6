// Memory statistics as a guest reports them. virtio 1.2 §5.5.6.3, §5.5.6.4.
import type { Reader } from "../cursor.js";
import { VIRTIO_BALLOON_STAT_SIZE } from "./constants.js";

/** What the guest says about its memory; a name is missing if it does not say. All but counts in `bytes`. */
export interface BalloonStatistics {
  swapIn?: number;
  swapOut?: number;
  /** Counts of page faults, with and without input from a disk. */
  majorFaults?: number;
  minorFaults?: number;
  freeMemory?: number;
  totalMemory?: number;
  availableMemory?: number;
  diskCaches?: number;
  /** Counts of huge pages. */
  hugetlbAllocations?: number;
  hugetlbFailures?: number;
  /** Counts of Linux 6.12 and later: programs ended for want of memory, waits for it, pages looked at and taken back. */
  oomKills?: number;
  allocationStalls?: number;
  asyncScans?: number;
  directScans?: number;
  asyncReclaims?: number;
  directReclaims?: number;
}

/** By tag, VIRTIO_BALLOON_S_*. */
const NAMES: readonly (keyof BalloonStatistics)[] = [
  "swapIn",
  "swapOut",
  "majorFaults",
  "minorFaults",
  "freeMemory",
  "totalMemory",
  "availableMemory",
  "diskCaches",
  "hugetlbAllocations",
  "hugetlbFailures",
  "oomKills",
  "allocationStalls",
  "asyncScans",
  "directScans",
  "asyncReclaims",
  "directReclaims",
];

/** More than any guest reports, and little enough to be read in one go. */
const MAX_ENTRIES = 64;

/** Reads what `reader` has; tags that we do not know are skipped, "as the device MUST" (§5.5.6.3.2). */
export function readStatistics(reader: Reader): BalloonStatistics {
  const statistics: BalloonStatistics = {};
  for (let count = 0; count < MAX_ENTRIES && reader.remaining >= VIRTIO_BALLOON_STAT_SIZE; count++) {
    const name = NAMES[reader.readU16()];
    const value = reader.readU64();
    if (name !== undefined) statistics[name] = value;
  }
  return statistics;
}
