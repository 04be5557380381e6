// The main thread's side of a vCPU thread: start, failure, end.
import { Worker } from "node:worker_threads";
import type { MachineDescriptor, VcpuFailure, VcpuTripleFault, VcpuWorkerData } from "../vcpu/messages.js";

const WORKER_URL = new URL("./vcpu-worker.js", import.meta.url);

export class VcpuThread {
  readonly #worker: Worker;
  #hasEnded = false;

  /** `onMessage` hears why the thread gave up, or what the guest's registers were. */
  constructor(
    machine: MachineDescriptor,
    index: number,
    standby: boolean,
    onMessage: (message: VcpuFailure | VcpuTripleFault) => void,
  ) {
    const data: VcpuWorkerData = { machine, index, standby };
    this.#worker = new Worker(WORKER_URL, { workerData: data, stdout: false, stderr: false });
    this.#worker.on("message", onMessage);
    this.#worker.on("error", (error) => {
      onMessage({ code: "BUG", message: String(error), cure: undefined, stack: error.stack });
    });
    // The process may end while a thread that never ran a vCPU is still starting.
    this.#worker.unref();
    this.#worker.once("exit", () => (this.#hasEnded = true));
  }

  /**
   * Resolves once the thread has ended by itself, which it does when the VM stops. It is never
   * terminated: a native call that fails in a thread being torn down aborts the whole process.
   */
  ended(): Promise<void> {
    if (this.#hasEnded) return Promise.resolve();
    this.#worker.ref();
    return new Promise((resolve) => this.#worker.once("exit", () => resolve()));
  }
}
