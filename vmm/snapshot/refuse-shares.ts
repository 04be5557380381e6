// A guest with shared folders stays where it is: what it has open there is known to their server alone, which has no way
// to write that down.
import type { ResolvedConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";

/** Throws SnapshotError for a guest that cannot be saved or moved. */
export function refuseShares({ shares }: ResolvedConfig): void {
  const [share] = shares;
  if (share === undefined) return;
  throw new SnapshotError(`Shared folder ${share.path}: a guest with one cannot be saved or moved`, {
    cure: "give it a disk instead",
  });
}
