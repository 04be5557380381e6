// Which Firecracker this program passes for. Clients compare it, and some read a digit a part alone.

export const FIRECRACKER_VERSION = "1.9.0";
/** Of the state file of a snapshot; ours, which no Firecracker reads. */
export const SNAPSHOT_VERSION = "1.0.0";
