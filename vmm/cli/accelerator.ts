// --accel: this host's /dev/kvm, or the lab.
import { HostError } from "../errors.js";
import { acceleratorKind, hasHardwareVirtualization } from "../host.js";
import { missingLabPrograms } from "../lab/programs.js";
import type { AcceleratorChoice } from "./arguments.js";

export interface Choice {
  readonly kind: "kvm" | "lab";
  /** Why the lab, for the one line that the user gets; undefined if it was asked for. */
  readonly reason: string | undefined;
}

/** Throws HostError if "auto" finds neither. */
export function chooseAccelerator(wanted: AcceleratorChoice): Choice {
  if (wanted !== "auto") return { kind: wanted, reason: undefined };
  const kind = acceleratorKind();
  if (hasHardwareVirtualization(kind)) return { kind: "kvm", reason: undefined };
  const why =
    kind === "none" ? "this host has no /dev/kvm" : "this host's /dev/kvm has no hardware virtualization behind it";
  const missing = missingLabPrograms();
  if (missing.length > 0) {
    throw new HostError(`${why}, and the lab lacks ${missing.join(", ")}`, {
      cure: `install what the lab needs: apt-get install ${missing.join(" ")}`,
    });
  }
  return { kind: "lab", reason: `${why}: booting in the lab, an emulated host (slower)` };
}
