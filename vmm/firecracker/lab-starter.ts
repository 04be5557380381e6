// Guests where there is no KVM: in the lab. What it cannot give them is refused when it is asked for.
import type { VmmError } from "../errors.js";
import { checkLabPrograms } from "../lab/accelerator.js";
import { checkGuest } from "../machine/builder.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { openDisks } from "../virtio/attach/disks.js";
import { closeDiskFile } from "../virtio/backends/disk-file.js";
import { Fault, faultOf } from "./fault.js";
import type { Feature } from "./guest.js";
import { LabGuest } from "./lab-guest.js";
import type { Settings } from "./settings.js";
import { vmConfig } from "./vm-config.js";

const FEATURES: Readonly<Record<Feature, string>> = {
  "network interfaces": "network interfaces",
  vsock: "a vsock device",
  snapshots: "snapshots",
};

export class LabStarter {
  readonly #host: VmHost;
  readonly #why: VmmError;

  /** `why`: what is wrong with this host's KVM. */
  constructor(host: VmHost, why: VmmError) {
    this.#host = host;
    this.#why = why;
  }

  warmUp(): void {
    // The lab starts from a state of its own.
  }

  /** Throws Fault. */
  check(feature: Feature): never {
    throw this.#refused(FEATURES[feature]);
  }

  /** Answers when all is checked that can be here; a guest that cannot be started after that has ended. */
  start(settings: Settings): LabGuest {
    if (settings.nets.length > 0) throw this.#refused("network interfaces");
    if (settings.vsock !== undefined) throw this.#refused("a vsock device");
    if (settings.machine.huge_pages === "2M") throw this.#refused("huge pages of 2M");
    try {
      // Its processor is an emulated one, whatever is asked for.
      const config = vmConfig(settings, { isSoftwareKvm: true });
      for (const file of openDisks(config.disks)) closeDiskFile(file);
      checkGuest(config);
      checkLabPrograms("amd");
      this.#host.log?.(`${this.#why.message}: booting in the lab, an emulated host (slower)`);
      return new LabGuest(config, this.#host);
    } catch (error) {
      throw faultOf(error, "The microVM cannot be started");
    }
  }

  load(): never {
    throw this.#refused("snapshots");
  }

  #refused(what: string): Fault {
    return new Fault(
      `A guest in the lab, an emulated host, cannot have ${what}: leave that out, or use a host with a /dev/kvm (${this.#why.message})`,
    );
  }
}
