// What this host's /dev/kvm leaves to the monitor: found out once, and remembered for later processes.
import { remembered } from "../host/probe-cache.js";
import { KvmSystem } from "../kvm/system.js";
import { probeQuirks } from "./probe.js";
import { isQuirks, type Quirks } from "./quirks.js";

/** Undefined on hardware. Throws HostError without a /dev/kvm that can be used. */
export function hostQuirks(): Quirks | undefined {
  const system = KvmSystem.open();
  try {
    return remembered(() => probeQuirks(system), isQuirks);
  } finally {
    system.close();
  }
}
