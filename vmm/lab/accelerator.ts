// Where guests run: with this host's /dev/kvm, or in the lab.
import { HostError, VmmError } from "../errors.js";
import { hostQuirks } from "../fixups/host-quirks.js";
import type { Quirks } from "../fixups/quirks.js";
import type { LabCpu } from "./cpu.js";
import { missingLabPrograms } from "./programs.js";

export const ACCELERATORS = ["auto", "kvm", "lab", "lab-intel"] as const;
export type AcceleratorChoice = (typeof ACCELERATORS)[number];

export type Choice =
  | {
      readonly kind: "kvm";
      /** What this KVM leaves to the monitor; undefined on hardware. */
      readonly quirks: Quirks | undefined;
    }
  | {
      readonly kind: "lab";
      readonly cpu: LabCpu;
      /** Why the lab is used, for the line that tells the user; undefined if the user asked for it. */
      readonly reason: string | undefined;
    };

/** Throws HostError if the user asked for KVM and it cannot be used, or if "auto" finds neither. */
export function chooseAccelerator(wanted: AcceleratorChoice): Choice {
  if (wanted === "lab" || wanted === "lab-intel") return lab(wanted === "lab" ? "amd" : "intel");
  try {
    return { kind: "kvm", quirks: hostQuirks() };
  } catch (error) {
    if (wanted === "kvm" || !(error instanceof VmmError)) throw error;
    return labBecause(error);
  }
}

function lab(cpu: LabCpu): Choice {
  checkLabPrograms(cpu);
  return { kind: "lab", cpu, reason: undefined };
}

/** Throws HostError if the lab cannot be built or started. */
export function checkLabPrograms(cpu: LabCpu): void {
  const missing = missingLabPrograms(cpu);
  if (missing.length === 0) return;
  throw new HostError(`The lab lacks ${missing.join(", ")}`, { cure: `apt-get install ${missing.join(" ")}` });
}

function labBecause(why: VmmError): Choice {
  const missing = missingLabPrograms();
  if (missing.length > 0) {
    throw new HostError(`${why.message}, and the lab lacks ${missing.join(", ")}`, {
      cause: why,
      cure: `install what the lab needs: apt-get install ${missing.join(" ")}${why.cure === undefined ? "" : `; or ${why.cure}`}`,
    });
  }
  return { kind: "lab", cpu: "amd", reason: `${why.message}: booting in the lab, an emulated host (slower)` };
}
