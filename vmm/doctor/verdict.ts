// What `vmlet boot` will use on this host, why, and what would make it better.
import { hasHardwareVirtualization, type AcceleratorKind } from "../host.js";
import type { Finding, Verdict } from "./checks.js";

export function decide(
  kind: AcceleratorKind,
  isUsable: boolean,
  hasLab: boolean,
  findings: readonly Finding[],
): Verdict {
  const better = findings.flatMap(({ status, cure }) => (status === "ok" || cure === undefined ? [] : [cure]));
  if (isUsable && hasHardwareVirtualization(kind)) {
    return { accelerator: "kvm", reason: `/dev/kvm (${kind}) has hardware virtualization behind it`, better: [] };
  }
  const why = isUsable ? "/dev/kvm has no hardware virtualization behind it" : "/dev/kvm cannot be used";
  if (hasLab) return { accelerator: "lab", reason: why, better };
  return { accelerator: "none", reason: `${why}, and the lab is not complete`, better };
}
