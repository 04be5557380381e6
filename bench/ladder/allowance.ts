// How long one start may take here: the rung's own limit, longer where this host is slower, either with a
// guest's kernel (as the probe measures it) or with everything.
import { measureGuestKernelMips } from "../../vmm/doctor/speed-probe.js";
import { VmmError } from "../../vmm/errors.js";
import { KvmSystem } from "../../vmm/kvm/system.js";
import { guestSlowness, hostSlowness, timeLimit } from "../../vmm/host/time-limit.js";
import type { Rung } from "./rung.js";

let ofGuests: number | undefined;

function slownessOfGuests(): number {
  try {
    const system = KvmSystem.open();
    try {
      return guestSlowness(measureGuestKernelMips(system));
    } finally {
      system.close();
    }
  } catch (error) {
    // Without a KVM there are no guests that could be slow.
    if (error instanceof VmmError) return 1;
    throw error;
  }
}

/** One start of the rung, `ms`. */
export function allowanceMs({ name, family, timeoutMs }: Rung): number {
  const slowness = family === "vm" ? Math.max((ofGuests ??= slownessOfGuests()), hostSlowness()) : hostSlowness();
  return timeLimit(`a start of ${name}`, timeoutMs, slowness);
}
