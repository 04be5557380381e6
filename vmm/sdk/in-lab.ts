// What a VM in the lab cannot have: the lab is a host of its own, with nothing of this one but disks.
import { ConfigError } from "../errors.js";
import type { CheckedOptions } from "./vm-options.js";

/** Throws ConfigError before anything is made. `reason`: why it is to be the lab; undefined: it was asked for. */
export function refuseInLab({ network, ports, publishAll, volumes }: CheckedOptions, reason: string | undefined): void {
  const given = [
    ...(ports.length > 0 ? ["--publish (ports)"] : []),
    ...(publishAll === undefined ? [] : ["--publish-all (publishAll)"]),
    ...(network.kind !== "none" && ports.length === 0 ? [`--network ${network.kind} (network)`] : []),
    ...(volumes.some(({ isReadonly }) => !isReadonly) ? ["--volume (volumes) without :ro"] : []),
    ...(volumes.some(({ isFile }) => isFile) ? ["--volume (volumes) of a file"] : []),
  ];
  if (given.length === 0) return;
  const why = reason === undefined ? "" : ` (${reason})`;
  throw new ConfigError([
    `${given.join(" and ")} cannot reach this host from the lab: leave it out, or use a host with a /dev/kvm${why}`,
  ]);
}
