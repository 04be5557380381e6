// The owner's side of a thread that runs vCPUs: start, turns, failure, end.
import { Worker } from "node:worker_threads";
import { HostError } from "../errors.js";
import { failureOfThread } from "../vcpu/failure.js";
import {
  END_THREAD,
  type MachineDescriptor,
  type VcpuFailure,
  type VcpuTripleFault,
  type VcpuTurn,
  type VcpuTurnReport,
} from "../vcpu/messages.js";
import { processSeal } from "../sys/process-seal.js";
import { THREAD_FILE, threadCode } from "./thread-code.js";

export interface TurnOptions {
  readonly machine: MachineDescriptor;
  readonly index: number;
  /** It waits until the thread that runs the vCPU gives it up. */
  readonly standby: boolean;
  /** Receives why the thread gave up, or what the guest's registers were. */
  heard(message: VcpuFailure | VcpuTripleFault): void;
  /** The thread has let go of the vCPU. */
  ended(): void;
}

/** One vCPU on a thread. */
export interface Turn {
  readonly thread: VcpuThread;
  /** The process shall not end before the turn does. */
  holdProcess(): void;
}

interface OpenTurn extends TurnOptions {
  isHolding: boolean;
}

let turns = 0;

export class VcpuThread {
  readonly #worker: Worker;
  /** In the order in which it has them. */
  readonly #open = new Map<number, OpenTurn>();
  /** It has given a vCPU up, and ends. */
  #isBroken = false;
  readonly #ended: Promise<void>;
  #isReady = false;
  #problem: Error | undefined;
  /** Somebody waits for its end. */
  #isEnding = false;
  #onReady: (() => void)[] = [];

  /** `lost`: the thread is no more. */
  constructor(lost: (thread: VcpuThread) => void) {
    // With none of this process's flags: a program given as text has one (--input-type) that no file may have.
    const code = threadCode();
    // What a thread would print goes to the process's own streams, which ask for things when they are made: not once it is sealed.
    const isQuiet = code !== undefined;
    // Nor does it load what NODE_OPTIONS names.
    const env = code === undefined ? process.env : {};
    const options = { stdout: isQuiet, stderr: isQuiet, execArgv: [], env, workerData: processSeal.vcpuFilter?.() };
    this.#worker = code === undefined ? new Worker(THREAD_FILE, options) : new Worker(code, { ...options, eval: true });
    this.#worker.on("message", ({ turn, message }: VcpuTurnReport) => {
      this.#beReady();
      const open = this.#open.get(turn);
      if (message !== undefined && message.code !== "TRIPLE_FAULT") this.#isBroken = true;
      if (message !== undefined) open?.heard(message);
      else this.#close(turn);
    });
    this.#worker.on("error", (error) => {
      this.#problem = error;
      for (const turn of this.#open.values()) {
        turn.heard(failureOfThread(startProblem(error) === undefined ? error : explainStart(turn.index, error)));
      }
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once("exit", () => {
        this.#isBroken = true;
        this.#beReady();
        lost(this);
        for (const turn of [...this.#open.keys()]) this.#close(turn);
        resolve();
      });
    });
    // An idle thread, and one that is still starting, keeps no process alive.
    this.#worker.unref();
  }

  /** It takes no more turns. */
  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** What the host has said that gives it up, or a defect. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  /** After the turns before it, which have to be about to end. */
  begin(options: TurnOptions): Turn {
    const turn = ++turns;
    const { machine, index, standby } = options;
    const open = { ...options, isHolding: false };
    this.#open.set(turn, open);
    const message: VcpuTurn = { turn, machine, index, standby };
    this.#worker.postMessage(message);
    return {
      thread: this,
      holdProcess: () => {
        open.isHolding = true;
        this.#hold();
      },
    };
  }

  /**
   * After its turns. It is never terminated: a native call that fails in a thread being torn down aborts the whole
   * process. Resolves once it has ended.
   */
  end(): Promise<void> {
    this.#isEnding = true;
    this.#hold();
    this.#worker.postMessage(END_THREAD);
    return this.#ended;
  }

  /** Resolves once it has loaded its code, or has ended; the process does not end before. */
  whenReady(): Promise<void> {
    if (this.#isReady) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onReady.push(resolve);
      this.#hold();
    });
  }

  #beReady(): void {
    if (this.#isReady) return;
    this.#isReady = true;
    for (const resolve of this.#onReady.splice(0)) resolve();
    this.#hold();
  }

  #close(turn: number): void {
    const open = this.#open.get(turn);
    this.#open.delete(turn);
    this.#hold();
    open?.ended();
  }

  #hold(): void {
    const isWaitedFor = this.#isEnding || this.#onReady.length > 0;
    if (isWaitedFor || [...this.#open.values()].some(({ isHolding }) => isHolding)) this.#worker.ref();
    else this.#worker.unref();
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
