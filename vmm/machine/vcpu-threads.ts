// The threads of one VM's vCPUs: those that the pool gives it, or that it holds from its beginning.
import { HostError } from "../errors.js";
import { nextEvent, type NextEvent } from "../kvm/next-event.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import type { VmFd } from "../kvm/vm-fd.js";
import type { MachineDescriptor, VcpuFailure, VcpuTripleFault } from "../vcpu/messages.js";
import { VCPU_IDLE, VCPU_PARKED, VCPU_PAUSED, VCPU_RUNNING, type VmShared } from "../vcpu/shared.js";
import type { Runnable } from "./scheduler.js";
import type * as threads from "./threads.js";
import type { Turn, VcpuThread } from "./vcpu-thread.js";

export interface VcpuThreadsOptions {
  readonly machine: { readonly vm: VmFd; readonly vcpus: readonly VcpuFd[]; readonly descriptor: MachineDescriptor };
  readonly shared: VmShared;
  /** Receives the messages of a vCPU's thread. */
  heard(vcpu: number, message: VcpuFailure | VcpuTripleFault): void;
  /** The VM has threads from now on, or none. */
  held(areHeld: boolean): void;
  /** vCPUs are to look at the shared words. */
  kick(): void;
  /** The process ends: so does the guest, at once. */
  readonly stopAtExit: () => void;
  /** Interrupts of devices that this thread knows nothing of are to come through it, or need not any more. */
  readonly relayInterrupts: (isOn: boolean) => void;
  /** Nothing can wake the guest. */
  haltedForEver(): void;
  /** The host gives no thread. */
  failed(error: unknown): void;
}

export class VcpuThreads implements Runnable {
  readonly vcpus: number;
  readonly #options: VcpuThreadsOptions;
  /** Those that have not ended; true: the thread has been given back. */
  readonly #turns = new Map<Turn, boolean>();
  #host: typeof threads | undefined;
  #waiters: (() => void)[] = [];
  /** An interrupt was raised before it was scheduled. */
  #wasRaised = false;

  constructor(options: VcpuThreadsOptions) {
    this.#options = options;
    this.vcpus = options.machine.vcpus.length;
  }

  get isClear(): boolean {
    return this.#turns.size === 0;
  }

  /** None of the vCPUs runs, nor is about to. */
  get allRest(): boolean {
    return this.#restFrom(0);
  }

  /** The same, but for vCPU 0. */
  get othersRest(): boolean {
    return this.#restFrom(1);
  }

  /** A thread for each vCPU from `from` on, which it keeps. Throws HostError if the host has none left. */
  async startFrom(from: number): Promise<void> {
    for (let vcpu = from; vcpu < this.vcpus; vcpu++) await this.start(vcpu, false);
  }

  /** `standby`: it waits until the thread that runs the vCPU gives it up. */
  async start(vcpu: number, standby: boolean): Promise<void> {
    const { pool, explainStart } = await this.#load();
    try {
      for (const thread of pool.takeAnyway(1)) this.#begin(vcpu, thread, standby);
    } catch (error) {
      throw error instanceof HostError ? error : explainStart(vcpu, error);
    }
  }

  /** Every vCPU has a thread that `start` has given it: others may have it from now on. */
  share(): void {
    this.#host?.scheduler.adopt(this);
  }

  /** From now on it has threads whenever it has something to do and there are some. */
  async schedule(): Promise<void> {
    const { scheduler } = this.#host ?? (await this.#load());
    // Paused meanwhile, or before: whoever resumes it comes here again.
    if (this.#options.shared.isPausing) return;
    scheduler.add(this, this.#wasRaised);
    this.#wasRaised = false;
  }

  /** It has ended, or is paused. */
  unschedule(): void {
    this.#host?.scheduler.remove(this);
  }

  /** An interrupt was raised. */
  wake(): void {
    if (this.#host?.scheduler.wake(this) !== true) this.#wasRaised = true;
  }

  /** All vCPUs rest. */
  rested(): void {
    this.#host?.scheduler.rested(this);
  }

  /** Gives the threads back: the VM rests for longer. */
  giveBack(): void {
    for (const thread of this.release()) this.#host?.pool.giveBack(thread);
    this.#host?.scheduler.serve();
  }

  /** Resolves once no thread is at any of the vCPUs. */
  ended(): Promise<void> {
    this.unschedule();
    if (this.isClear) return Promise.resolve();
    for (const turn of this.#turns.keys()) turn.holdProcess();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  // -- Runnable: for the scheduler --

  run(threads: readonly VcpuThread[]): void {
    const { shared, relayInterrupts } = this.#options;
    relayInterrupts(false);
    threads.forEach((thread, vcpu) => {
      shared.claimVcpu(vcpu, VCPU_PARKED, VCPU_RUNNING);
      this.#begin(vcpu, thread, false);
    });
  }

  askToRest(): void {
    this.#options.shared.isYielding = true;
    this.#options.kick();
  }

  goOn(): void {
    const { shared, relayInterrupts } = this.#options;
    relayInterrupts(false);
    shared.isYielding = false;
    if (!shared.isPausing)
      for (let vcpu = 0; vcpu < this.vcpus; vcpu++) shared.claimVcpu(vcpu, VCPU_PAUSED, VCPU_RUNNING);
  }

  release(): VcpuThread[] {
    const { shared } = this.#options;
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) shared.claimVcpu(vcpu, VCPU_PAUSED, VCPU_PARKED);
    shared.isYielding = false;
    this.#options.held(false);
    const held = [...this.#turns].filter(([, isGivenBack]) => !isGivenBack).map(([turn]) => turn);
    for (const turn of held) this.#turns.set(turn, true);
    return held.map(({ thread }) => thread);
  }

  nextEvent(): NextEvent {
    const { machine, relayInterrupts } = this.#options;
    const { vm, vcpus } = machine;
    // First: what comes before this is seen below, what comes after it wakes the guest.
    relayInterrupts(true);
    return nextEvent(vm, vcpus);
  }

  haltedForEver(): void {
    this.#options.haltedForEver();
  }

  failed(error: unknown): void {
    this.#options.failed(this.#host?.explainStart(0, error) ?? error);
  }

  #restFrom(first: number): boolean {
    const { shared } = this.#options;
    for (let vcpu = first; vcpu < this.vcpus; vcpu++) {
      const state = shared.vcpuState(vcpu);
      const rests = state === VCPU_PAUSED || state === VCPU_PARKED || (state === VCPU_IDLE && this.isClear);
      if (!rests) return false;
    }
    return true;
  }

  #begin(vcpu: number, thread: VcpuThread, standby: boolean): void {
    const turn = thread.begin({
      machine: this.#options.machine.descriptor,
      index: vcpu,
      standby,
      heard: (message) => {
        this.#options.heard(vcpu, message);
      },
      ended: () => {
        if (this.#turns.get(turn) === false) this.#host?.pool.giveBack(thread);
        this.#turns.delete(turn);
        if (this.isClear) this.#host?.stopsAtExit.delete(this.#options.stopAtExit);
        if (this.isClear) for (const resolve of this.#waiters.splice(0)) resolve();
        this.#host?.scheduler.serve();
      },
    });
    this.#turns.set(turn, false);
    this.#host?.stopsAtExit.add(this.#options.stopAtExit);
    this.#options.held(true);
  }

  async #load() {
    // Only now: node:worker_threads brings all of Node's streams, 4 ms before the first KVM_RUN.
    const host = await import("./threads.js");
    this.#host = host;
    return host;
  }
}
