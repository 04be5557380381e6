// What a VM's guest gets before any program of the user's: its name and its folders. One that goes on from a template has heard
// its name, the time and fresh random numbers already.
import type { AgentConnection } from "../agent/connection.js";
import { GuestFiles } from "../agent/files.js";
import { GuestControl } from "../agent/guest.js";
import { volumeDevice, volumeTag } from "./guest-config.js";
import type { VmSpec } from "./vm-spec.js";

/** mount(2) */
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;

/** Whether there is anything to be done before a program may begin. */
export function needsSetUp({ volumes, tmpfs }: VmSpec, isRestored: boolean): boolean {
  return !isRestored || volumes.length > 0 || tmpfs.length > 0;
}

/** Rejects with GuestRequestError for what the guest refuses, and with AgentError. */
export async function setUpGuest(agent: AgentConnection, spec: VmSpec, isRestored: boolean): Promise<void> {
  const guest = new GuestControl(agent, new GuestFiles(agent));
  // The connection keeps their order; each alone would cost the guest a wake-up.
  const steps: Promise<void>[] = [];
  if (!isRestored) {
    const hostname = spec.hostName === undefined ? {} : { hostname: spec.hostName };
    steps.push(guest.setIdentity({ ...hostname, timeNs: BigInt(Date.now()) * 1_000_000n }));
  }
  spec.volumes.forEach(({ guestPath, isReadonly }, index) => {
    const flags = isReadonly ? MS_RDONLY : 0;
    steps.push(
      spec.isInLab === true
        ? guest.mount(volumeDevice(index), guestPath, "erofs", { flags })
        : guest.mount(volumeTag(index), guestPath, "virtiofs", { flags }),
    );
  });
  for (const { guestPath, options } of spec.tmpfs) {
    steps.push(guest.mount("tmpfs", guestPath, "tmpfs", { flags: MS_NOSUID | MS_NODEV, data: options }));
  }
  await Promise.all(steps);
}
