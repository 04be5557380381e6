// --accel: this host's /dev/kvm, or the lab.
import { HostError, VmmError } from "../errors.js";
import { probeQuirks } from "../fixups/probe.js";
import { isQuirks, type Quirks } from "../fixups/quirks.js";
import { KvmSystem } from "../kvm/system.js";
import type { LabCpu } from "../lab/cpu.js";
import { missingLabPrograms } from "../lab/programs.js";
import type { AcceleratorChoice } from "./arguments.js";
import { remembered } from "../host/probe-cache.js";

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
    const system = KvmSystem.open();
    try {
      return { kind: "kvm", quirks: remembered(() => probeQuirks(system), isQuirks) };
    } finally {
      system.close();
    }
  } catch (error) {
    if (wanted === "kvm" || !(error instanceof VmmError)) throw error;
    return labBecause(error);
  }
}

/** The accelerator; if /dev/kvm was needed and failed, the error gives the doctor's reason. */
export async function chooseOrExplain(accel: AcceleratorChoice): Promise<Choice> {
  try {
    return chooseAccelerator(accel);
  } catch (error) {
    if (!(error instanceof VmmError)) throw error;
    const why = (await import("../doctor/in-a-line.js")).whyNoKvm();
    if (why === undefined) throw error;
    const other = error.cure === undefined || accel === "kvm" ? "" : `; or ${error.cure}`;
    throw new HostError(`${error.message}: ${why.detail}`, { cause: error, cure: `${why.cure}${other}` });
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
