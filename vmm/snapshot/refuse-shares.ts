// A guest with shared folders stays on its host: what it has open there is known to their server alone, and so are the folders.
import type { ResolvedConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";

/** Throws SnapshotError for a guest that cannot be moved. */
export function refuseShares({ shares }: ResolvedConfig): void {
  const [share] = shares;
  if (share === undefined) return;
  throw new SnapshotError(`Shared folder ${share.path}: a guest with one cannot be moved`, {
    cure: "give it a disk instead",
  });
}
