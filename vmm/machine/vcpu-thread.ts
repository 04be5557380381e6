// The owner's side of a vCPU thread: start, failure, end.
import { Worker } from "node:worker_threads";
import { HostError } from "../errors.js";
import { failureOfThread } from "../vcpu/failure.js";
import type { MachineDescriptor, VcpuFailure, VcpuTripleFault, VcpuWorkerData } from "../vcpu/messages.js";

const WORKER_URL = new URL("./vcpu-worker.js", import.meta.url);

export class VcpuThread {
  readonly #worker: Worker;
  #hasEnded = false;

  /** `onMessage` receives why the thread gave up, or what the guest's registers were. */
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
      const reason = startProblem(error);
      onMessage(failureOfThread(reason === undefined ? error : explainStart(index, error)));
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

/** What a host says that has no thread left, or no descriptors for one, and what helps. */
const START_PROBLEMS: readonly (readonly [sign: RegExp, problem: string, cure: string])[] = [
  [/EMFILE|ENFILE/, "too many open files", "raise the limit of open files: ulimit -n"],
  [
    /EAGAIN|pthread_create|uv_thread_create/i,
    "no more threads are allowed",
    "raise ulimit -u, or the cgroup's pids.max",
  ],
  [/ENOMEM|OUT_OF_MEMORY/, "too little memory", "free some memory, or raise the limit of the cgroup or ulimit -v"],
];

function startProblem(error: unknown): readonly [problem: string, cure: string | undefined] | undefined {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const text = `${String(code)} ${String(message)}`;
  const known = START_PROBLEMS.find(([sign]) => sign.test(text));
  if (known !== undefined) return [known[1], known[2]];
  return code === "ERR_WORKER_INIT_FAILED" ? [String(message), undefined] : undefined;
}

/** The error for a thread that the host does not give. */
export function explainStart(vcpu: number, cause: unknown): HostError {
  const [problem, cure] = startProblem(cause) ?? [String(cause), undefined];
  return new HostError(`The thread of vCPU ${String(vcpu)} cannot be started: ${problem}`, { cause, cure });
}
