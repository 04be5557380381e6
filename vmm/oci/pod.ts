// Which containers share a VM: those of a pod. The engine makes a first one, the sandbox, whose VM it is, and names it in the
// annotations of each that follows. Kubernetes: containerd's CRI, and CRI-O, whose names podman has, too.
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import { ID } from "./container-id.js";

export type PodRole =
  { readonly kind: "alone" } | { readonly kind: "sandbox" } | { readonly kind: "container"; readonly sandbox: string };

const NAMES = [
  ["io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"],
  ["io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"],
] as const;

/** Throws ConfigError for a container of a pod that does not say of which. */
export function podRole(annotations: Readonly<Record<string, string>> = {}): PodRole {
  for (const [typeName, sandboxName] of NAMES) {
    const type = annotations[typeName];
    if (type === undefined) continue;
    if (type === "sandbox") return { kind: "sandbox" };
    if (type !== "container") {
      throw new ConfigError([`annotations.${typeName}: ${show(type)} is not "sandbox" or "container"`]);
    }
    const sandbox = annotations[sandboxName] ?? "";
    if (ID.test(sandbox)) return { kind: "container", sandbox };
    throw new ConfigError([`annotations.${sandboxName}: ${show(sandbox)} is no name of a container`]);
  }
  return { kind: "alone" };
}
