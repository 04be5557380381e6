// Interrupts other threads: brings vCPUs out of KVM_RUN, and wakes the main thread.
// Works from any thread, because file descriptors and mappings belong to the process.
import { KvmRun } from "../kvm/kvm-run.js";
import { kickThread } from "../sys/kick.js";
import { signalEventfd } from "../sys/events.js";
import type { VcpuAddress } from "./messages.js";
import type { VmShared } from "./shared.js";

export class Kicker {
  readonly #shared: VmShared;
  readonly #runs: readonly KvmRun[];
  readonly #doorbellFd: number;
  readonly #isMain: boolean;

  constructor(shared: VmShared, vcpus: readonly VcpuAddress[], mmapSize: number, doorbellFd: number, isMain: boolean) {
    this.#shared = shared;
    this.#isMain = isMain;
    this.#runs = vcpus.map(({ runAddress }) => new KvmRun(runAddress, mmapSize));
    this.#doorbellFd = doorbellFd;
  }

  /**
   * Makes vCPU `index` leave KVM_RUN, now or at its next entry. The caller has already stored
   * what the vCPU must find when it looks.
   */
  kickVcpu(index: number): void {
    const run = this.#runs[index];
    if (run === undefined) return;
    run.immediateExit = 1;
    const tid = this.#shared.vcpuThread(index);
    if (tid !== 0) kickThread(tid);
  }

  kickAllVcpus(): void {
    for (let index = 0; index < this.#runs.length; index++) this.kickVcpu(index);
  }

  /** Makes the main thread look at the shared words soon; cheap if it will anyway. */
  wakeMain(): void {
    if (!this.#shared.ringDoorbell()) return;
    if (this.#shared.isMainInKvmRun) {
      // The main thread itself looks at the bell after each exit.
      if (!this.#isMain) this.kickVcpu(0);
    } else signalEventfd(this.#doorbellFd);
  }
}
