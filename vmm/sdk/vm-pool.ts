// VMs that are started before anybody asks: taking one takes no longer than a turn of the event loop.
import { integerProblem } from "../config/check.js";
import { abortReason } from "../agent/abort.js";
import { ConfigError, VmStateError } from "../errors.js";
import { checkVmOptions } from "./vm-options.js";
import { Vm, type VmStartOptions } from "./vm.js";

const MAX_SIZE = 1024;
/** One that ends by itself before it is so old is replaced by the next `take`: its successors would end, too. */
const MIN_LIFE_MS = 1000;

export interface VmPoolOptions {
  /** How many VMs wait, as soon as they are there. */
  readonly size: number;
}

/** Each VM that is taken is a fresh one, and whoever takes it closes it. */
export class VmPool {
  readonly #start: (signal: AbortSignal) => Promise<Vm>;
  readonly #size: number;
  readonly #waiting: Vm[] = [];
  readonly #takers: { resolve: (vm: Vm) => void; reject: (error: Error) => void }[] = [];
  readonly #abort = new AbortController();
  #filling: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #hasFailed = false;

  /** Begins to fill itself. Throws ConfigError. */
  constructor(options: VmStartOptions, { size }: VmPoolOptions) {
    const problem = integerProblem("Size of the pool (size)", size, { minimum: 1, maximum: MAX_SIZE });
    const named = options.name === undefined ? [] : ["VMs of a pool have no name of their own: leave name out"];
    const problems = [...(problem === undefined ? [] : [problem]), ...named];
    if (problems.length > 0) throw new ConfigError(problems);
    const { signal: own, onProgress, onNotice, ...given } = options;
    checkVmOptions(given);
    const hooks = { onProgress, onNotice };
    this.#start = (signal) =>
      Vm.start({ ...given, ...hooks, signal: own === undefined ? signal : AbortSignal.any([own, signal]) });
    this.#size = size;
    void this.#fill().catch(() => undefined);
  }

  /** How many VMs wait now. */
  get ready(): number {
    return this.#waiting.length;
  }

  /**
   * A VM that nobody has used. Rejects as Vm.start does, with the signal's reason, and with VmStateError once the pool is
   * closed.
   */
  async take({ signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<Vm> {
    signal?.throwIfAborted();
    if (this.#closing !== undefined) throw closed();
    const vm = this.#waiting.shift();
    const taken = vm ?? this.#nextStarted(signal);
    void this.#fill().catch(() => undefined);
    return taken;
  }

  /** Resolves once as many VMs wait as are to. */
  async filled(): Promise<void> {
    while (this.#closing === undefined && this.#waiting.length < this.#size) await this.#fill();
  }

  /** Ends the VMs that nobody has taken; those that wait for one are refused. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #nextStarted(signal: AbortSignal | undefined): Promise<Vm> {
    return new Promise((resolve, reject) => {
      const taker = {
        resolve: (vm: Vm) => {
          signal?.removeEventListener("abort", giveUp);
          resolve(vm);
        },
        reject: (error: Error) => {
          signal?.removeEventListener("abort", giveUp);
          reject(error);
        },
      };
      const giveUp = (): void => {
        // Its VM is for the next one.
        this.#takers.splice(this.#takers.indexOf(taker), 1);
        if (signal !== undefined) reject(abortReason(signal));
      };
      this.#takers.push(taker);
      signal?.addEventListener("abort", giveUp, { once: true });
    });
  }

  async #close(): Promise<void> {
    for (const { reject } of this.#takers.splice(0)) reject(closed());
    this.#abort.abort(closed());
    await this.#filling?.catch(() => undefined);
    await Promise.all(this.#waiting.splice(0).map((vm) => vm.close()));
  }

  /** One after the other: two that start at once would only take each other's time. */
  #fill(): Promise<void> {
    this.#filling ??= this.#startOne().finally(() => {
      this.#filling = undefined;
      const wanted = this.#takers.length > 0 || this.#waiting.length < this.#size;
      if (wanted && this.#closing === undefined && !this.#hasFailed) {
        void this.#fill().catch(() => undefined);
      }
    });
    // Whoever takes a VM hears of it.
    this.#filling.catch(() => undefined);
    return this.#filling;
  }

  async #startOne(): Promise<void> {
    try {
      const vm = await this.#start(this.#abort.signal);
      this.#hasFailed = false;
      const startedMs = performance.now();
      // One that has ended while it waited is of no use.
      const replace = (): void => {
        const at = this.#waiting.indexOf(vm);
        if (at < 0 || this.#closing !== undefined) return;
        this.#waiting.splice(at, 1);
        if (performance.now() - startedMs < MIN_LIFE_MS) this.#hasFailed = true;
        else void this.#fill().catch(() => undefined);
      };
      vm.ended.then(replace, replace);
      const taker = this.#takers.shift();
      if (taker === undefined) this.#waiting.push(vm);
      else taker.resolve(vm);
    } catch (error) {
      // No endless tries: the next `take` is one.
      this.#hasFailed = true;
      for (const { reject } of this.#takers.splice(0)) reject(error as Error);
      throw error;
    }
  }
}

function closed(): VmStateError {
  return new VmStateError("take", "closed", "belongs to a closed pool");
}
