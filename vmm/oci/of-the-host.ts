// What a container asks for that is the host's: its processes, its System V memory, its devices. Refused where somebody wants it
// by name; what an engine gives to everyone (all devices, to a privileged container) is left out with a warning.
import { statSync } from "node:fs";
import { hostname } from "node:os";
import type { OciDevice, OciSpec } from "./runtime-spec.js";

export function refusedOfHost({ linux = {} }: OciSpec, guestHas: (device: OciDevice) => boolean): string[] {
  const { namespaces = [], devices = [] } = linux;
  const problems: string[] = [];
  const has = (wanted: string): boolean => namespaces.some(({ type }) => type === wanted);
  // Whoever has a list of all that the container is to have, and leaves one out, wants the host's: docker run --pid host.
  const isMissing = (wanted: string): boolean => has("mount") && !has(wanted);
  if (isMissing("pid")) {
    problems.push("linux.namespaces: no pid namespace: a VM has processes of its own, and does not see its host's");
  }
  if (isMissing("ipc")) {
    problems.push("linux.namespaces: no ipc namespace: memory and queues of the host's processes are not the VM's");
  }
  for (const { type, path = "" } of namespaces) {
    // Docker's way to say --network host. The VM would take the host's interfaces.
    if (type === "network" && path !== "" && isOwnNetwork(path)) {
      problems.push(`linux.namespaces: network ${path} is the host's network: a VM has a network of its own`);
    }
  }
  for (const device of devices) {
    if (guestHas(device) || !isAllowedByName(device, linux)) continue;
    const { path, type, major = 0, minor = 0 } = device;
    problems.push(`device ${path} (${type} ${String(major)}:${String(minor)}): a VM does not have its host's devices`);
  }
  return problems;
}

function isOwnNetwork(path: string): boolean {
  const own = statSync("/proc/self/ns/net");
  // A path that leads nowhere is told of later.
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat?.ino === own.ino && stat.dev === own.dev;
}

/** Engines allow what somebody has asked for by its numbers, and to a privileged container everything at once. */
function isAllowedByName({ type, major, minor }: OciDevice, { resources }: NonNullable<OciSpec["linux"]>): boolean {
  return (resources?.devices ?? []).some(
    (rule) => rule.allow && rule.type === type && rule.major === major && rule.minor === minor,
  );
}

/** Without a namespace of its own for it, the container has the host's. */
export function hostNameOf({ hostname: own, linux }: OciSpec): string {
  if (own !== undefined && own !== "") return own;
  const { namespaces = [] } = linux ?? {};
  const has = (wanted: string): boolean => namespaces.some(({ type }) => type === wanted);
  return has("mount") && !has("uts") ? hostname() : "";
}
