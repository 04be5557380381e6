// Notices a guest that has halted for ever: every vCPU in HLT with interrupts off, or never
// started. With the in-kernel interrupt controllers such a vCPU waits inside KVM_RUN and there
// is no exit. So from time to time a silent guest's vCPUs are asked, each on its own thread.
import type { Kicker } from "../vcpu/kicker.js";
import type { VmShared } from "../vcpu/shared.js";

/** How often a guest is looked at, `ms`. It has halted for up to twice as long when it is ended. */
export const HALT_WATCH_MS = 1000;

export class HaltWatcher {
  readonly #shared: VmShared;
  readonly #kicker: Kicker;
  readonly #vcpus: number;
  #lastExits = -1;

  constructor(shared: VmShared, kicker: Kicker, vcpus: number) {
    this.#shared = shared;
    this.#kicker = kicker;
    this.#vcpus = vcpus;
  }

  /** Call every HALT_WATCH_MS; true once the guest cannot wake up any more. */
  tick(): boolean {
    const shared = this.#shared;
    // The main thread runs vCPU 0 only for the boot's first moments.
    if (shared.isMainInKvmRun) return false;
    const exits = shared.guestExits();
    const isSilent = exits === this.#lastExits;
    this.#lastExits = exits;
    if (!isSilent) return false;
    for (let index = 0; index < this.#vcpus; index++) {
      if (!shared.isHalted(index)) {
        shared.askHalted();
        this.#kicker.kickAllVcpus();
        return false;
      }
    }
    return true;
  }
}
