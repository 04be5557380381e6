// The main thread's side of a vCPU thread: start, failure, end.
import { Worker } from "node:worker_threads";
import type { MachineDescriptor, VcpuFailure, VcpuWorkerData } from "./messages.js";

/** The bundle keeps the worker beside itself under another name than the plain build. */
const WORKER_URL = new URL(
  import.meta.url.endsWith("/handle.js") ? "./worker.js" : "./vcpu-worker.js",
  import.meta.url,
);

export class VcpuThread {
  readonly #worker: Worker;

  /** `onFailure` is called at most once, with what made the thread give up. */
  constructor(machine: MachineDescriptor, index: number, standby: boolean, onFailure: (failure: VcpuFailure) => void) {
    const data: VcpuWorkerData = { machine, index, standby };
    this.#worker = new Worker(WORKER_URL, { workerData: data, stdout: false, stderr: false });
    this.#worker.on("message", onFailure);
    this.#worker.on("error", (error) => {
      onFailure({ code: "BUG", message: String(error), cure: undefined, stack: error.stack });
    });
    // The process may end while a thread that never ran a vCPU is still starting.
    this.#worker.unref();
  }

  /** Ends the thread; it must not be in KVM_RUN any more, or the join would wait for the guest. */
  terminate(): Promise<unknown> {
    return this.#worker.terminate();
  }
}
