// The threads of a VM's vCPUs, all together.
import { HostError } from "../errors.js";
import type { MachineDescriptor, VcpuFailure, VcpuTripleFault } from "../vcpu/messages.js";
import type { VcpuThread } from "./vcpu-thread.js";

export class VcpuThreads {
  readonly #descriptor: MachineDescriptor;
  readonly #heard: (vcpu: number, message: VcpuFailure | VcpuTripleFault) => void;
  readonly #threads: VcpuThread[] = [];

  /** `heard` receives the messages of a vCPU's thread. */
  constructor(descriptor: MachineDescriptor, heard: (vcpu: number, message: VcpuFailure | VcpuTripleFault) => void) {
    this.#descriptor = descriptor;
    this.#heard = heard;
  }

  /** One for each vCPU from `from` on. Throws HostError if the host has none left. */
  async startFrom(from: number): Promise<void> {
    for (let vcpu = from; vcpu < this.#descriptor.vcpus.length; vcpu++) await this.start(vcpu, false);
  }

  /** `standby`: it waits until the thread that runs the vCPU gives it up. */
  async start(vcpu: number, standby: boolean): Promise<void> {
    // Only now: node:worker_threads brings all of Node's streams, 4 ms before the first KVM_RUN.
    const { VcpuThread, explainStart } = await import("./vcpu-thread.js");
    try {
      this.#threads.push(
        new VcpuThread(this.#descriptor, vcpu, standby, (message) => {
          this.#heard(vcpu, message);
        }),
      );
    } catch (error) {
      throw error instanceof HostError ? error : explainStart(vcpu, error);
    }
  }

  /** Resolves once all have ended, which they do when the VM stops. */
  async ended(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.ended()));
  }
}
