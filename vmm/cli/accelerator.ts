// --accel: this host's /dev/kvm, or the lab.
import { HostError, VmmError } from "../errors.js";
import { probeQuirks } from "../fixups/probe.js";
import type { Quirks } from "../fixups/quirks.js";
import { KvmSystem } from "../kvm/system.js";
import { missingLabPrograms } from "../lab/programs.js";
import type { AcceleratorChoice } from "./arguments.js";
import { remembered } from "./probe-cache.js";

export type Choice =
  | {
      readonly kind: "kvm";
      /** What this KVM leaves to the monitor; undefined on hardware. */
      readonly quirks: Quirks | undefined;
    }
  | {
      readonly kind: "lab";
      /** Why the lab, for the one line that the user gets; undefined if it was asked for. */
      readonly reason: string | undefined;
    };

/** Throws HostError for a KVM that was asked for and cannot be used, and if "auto" finds neither. */
export function chooseAccelerator(wanted: AcceleratorChoice): Choice {
  if (wanted === "lab") return { kind: "lab", reason: undefined };
  try {
    const system = KvmSystem.open();
    try {
      return { kind: "kvm", quirks: remembered(() => probeQuirks(system)) };
    } finally {
      system.close();
    }
  } catch (error) {
    if (wanted === "kvm" || !(error instanceof VmmError)) throw error;
    return lab(error);
  }
}

function lab(why: VmmError): Choice {
  const missing = missingLabPrograms();
  if (missing.length > 0) {
    throw new HostError(`${why.message}, and the lab lacks ${missing.join(", ")}`, {
      cause: why,
      cure: `install what the lab needs: apt-get install ${missing.join(" ")}${why.cure === undefined ? "" : `; or ${why.cure}`}`,
    });
  }
  return { kind: "lab", reason: `${why.message}: booting in the lab, an emulated host (slower)` };
}
