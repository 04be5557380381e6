// Rootless engines: what they may not do, a VM's monitor must.
import { readFileSync } from "node:fs";
import { ConfigError } from "../errors.js";

/** user_namespaces(7): the first namespace has all ids, each as itself. */
const ALL_IDS = /^\s*0\s+0\s+4294967295\s*$/;

/** Throws ConfigError for a process that is not the host's root. */
export function refuseRootless(
  uid = process.geteuid?.() ?? 0,
  map = readFileSync("/proc/self/uid_map", "latin1"),
): void {
  const hint = "control groups, interfaces and the files of a container need the host's root: use a rootful engine";
  if (uid !== 0)
    throw new ConfigError([`rootless containers cannot be had: vmlet-runtime runs as user ${String(uid)}; ${hint}`]);
  if (!ALL_IDS.test(map))
    throw new ConfigError([`rootless containers cannot be had: vmlet-runtime is in a user namespace; ${hint}`]);
}
