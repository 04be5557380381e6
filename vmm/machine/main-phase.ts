// The first phase of a VM that starts main-first: the thread that owns it runs vCPU 0 itself, turn by
// turn of its event loop, until the guest's init is up; then a thread of the vCPU's own takes over.
// DESIGN.md, "Threads", has the picture and the reasons.
import { nowMs } from "../host/clock.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import { gettid } from "../sys/kick.js";
import type { ThreadAlarm } from "../sys/thread-alarm.js";
import { describeRegisters, explainExit } from "../vcpu/explain-exit.js";
import { completeExit, runVcpu } from "../vcpu/loop.js";
import { MILESTONE_FIRST_RUN, MILESTONE_INIT, VCPU_RUNNING, VCPU_STANDBY, VCPU_STOPPED } from "../vcpu/shared.js";
import type { DeviceHost } from "../virtio/device-host.js";
import type { OutputPump } from "./output-pump.js";
import type { ThreadMachine } from "./thread-machine.js";
import type { VcpuThreads } from "./vcpu-threads.js";

/** The longest that the main thread stays with vCPU 0 without a sign of the guest's init, `ms`. */
const MAIN_PHASE_MS = 2000;
/**
 * How long the main thread stays after init, `ms`. A short command ends before: then no thread is
 * started at all, whose start-up would take a processor from the guest.
 */
const AFTER_INIT_MS = 100;
/**
 * How long the main thread stays with a guest that goes on from a snapshot, `ms`: it has most likely come for one answer, and
 * KVM waits for a grace period of its host's kernel when a vCPU gets another thread, which can be a tenth of a second.
 */
const AFTER_RESTORE_MS = 1000;
/** A successor rings when it is ready; this is the longest wait for one that does not, `ms`. */
const SUCCESSOR_MS = 5000;
/** How long others on this thread wait for a turn of the event loop, `ms`: devices with input from the host, other VMs. */
const HOST_TURN_MS = 20;
/** So many turns then: who has connected is heard in the first, and the first words of a connection in the next one. */
const HOST_TURNS = 3;
/** With more vCPUs, their threads are started this long after vCPU 0, `ms`. */
const SMP_START_MS = 2;

/** VMs that are in this phase on this thread. */
let phases = 0;

export interface MainPhaseOptions {
  readonly vcpu: VcpuFd;
  readonly vcpus: number;
  readonly machine: ThreadMachine;
  readonly alarm: ThreadAlarm;
  readonly threads: VcpuThreads;
  readonly devices: DeviceHost | undefined;
  /** Something comes from the host through the event loop. */
  readonly hearsHost: boolean;
  readonly pump: OutputPump;
  /** Does what the doorbell asks for. */
  readonly service: () => void;
  /** Notifications come to this thread as events from now on. */
  readonly connectEvents: () => void;
  readonly tripleFault: (registers: string) => void;
  readonly failed: (error: unknown) => void;
}

export class MainPhase {
  /** vCPU 0 is between two instructions, and stays there until `wake`. */
  isResting = false;
  readonly #options: MainPhaseOptions;
  #wake: (() => void) | undefined;
  /** When the next thing is due here, if nobody else waits for this thread. */
  #dueMs = 0;
  /** The alarm is set for that, or every HOST_TURN_MS. */
  #alarm: "unset" | "due" | "turns" = "unset";

  constructor(options: MainPhaseOptions) {
    this.#options = options;
  }

  /** Returns once the guest has ended, or its vCPU 0 runs on a thread of its own. */
  async run(): Promise<void> {
    const { machine, alarm, service, devices } = this.#options;
    const { shared } = machine;
    let isHandedOver = false;
    phases++;
    if (devices !== undefined) devices.isMainPhase = true;
    try {
      shared.setVcpuThread(0, gettid());
      const hasSuccessor = await this.#turns();
      alarm.clear();
      if (devices !== undefined) devices.isMainPhase = false;
      if (hasSuccessor) this.#options.connectEvents();
      isHandedOver = hasSuccessor;
    } catch (error) {
      this.#options.failed(error);
    }
    phases--;
    if (devices !== undefined) devices.isMainPhase = false;
    if (isHandedOver) {
      // The worker wakes up and goes on with the same vCPU.
      shared.setVcpuState(0, VCPU_RUNNING);
    } else {
      shared.setVcpuThread(0, 0);
      // A successor that waits finds that there is nothing to take over, and ends.
      shared.setVcpuState(0, VCPU_STOPPED);
      service();
    }
  }

  /** The VM has been resumed, or stopped. */
  wake(): void {
    this.#wake?.();
  }

  /** True once a successor is ready for the vCPU, false if the guest has ended before. */
  async #turns(): Promise<boolean> {
    const { machine, vcpus, threads, pump, service, hearsHost } = this.#options;
    const { shared } = machine;
    const turns = hearsHost ? HOST_TURNS : 1;
    const started = nowMs();
    let smpStarted = vcpus === 1;
    let successorStarted = false;
    let initSeen: number | undefined;
    const afterInitMs = machine.isRestored ? AFTER_RESTORE_MS : AFTER_INIT_MS;
    this.#wait(smpStarted ? MAIN_PHASE_MS : SMP_START_MS);
    // The slot stays idle, so that a successor can put itself on standby in it.
    shared.markMilestone(MILESTONE_FIRST_RUN, process.hrtime.bigint());
    // What has been restored begins as if it had just been paused: fix-ups see its registers before it runs.
    if (machine.isRestored) this.#runGuest(completeExit);
    for (;;) {
      // Not before the others have threads: each of them has to say that it rests.
      if (shared.isPausing && smpStarted) await this.#rest();
      else this.#runGuest(runVcpu);
      service();
      if (shared.isStopping()) return false;
      // Let signals, standard input and finished writes in.
      for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
      if (pump.isHigh) await pump.written();
      if (shared.isStopping()) return false;

      if (!smpStarted && nowMs() - started >= SMP_START_MS) {
        smpStarted = true;
        this.#wait(MAIN_PHASE_MS);
        await threads.startFrom(1);
      }
      if (initSeen === undefined && shared.milestone(MILESTONE_INIT) !== undefined) {
        initSeen = nowMs();
        if (!successorStarted) this.#wait(afterInitMs);
      }
      const mayLeave =
        nowMs() - started >= MAIN_PHASE_MS || (initSeen !== undefined && nowMs() - initSeen >= afterInitMs);
      if (!successorStarted && mayLeave) {
        successorStarted = true;
        // Not again and again: each alarm is an exit, and takes its time from the guest.
        this.#wait(SUCCESSOR_MS);
        await threads.start(0, true);
      }
      if (successorStarted && shared.vcpuState(0) === VCPU_STANDBY) return true;
    }
  }

  async #rest(): Promise<void> {
    const { machine, service } = this.#options;
    const { shared } = machine;
    this.#runGuest(completeExit);
    this.isResting = true;
    while (shared.isPausing && !shared.isStopping()) {
      service();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.isResting = false;
  }

  /** In the guest until a turn of the event loop is due. */
  #runGuest(step: typeof runVcpu): void {
    const { vcpu, machine, failed, tripleFault } = this.#options;
    const { shared } = machine;
    this.#setAlarm();
    shared.isMainInKvmRun = true;
    // A bell that rang before the flag was up woke nobody: look once more before blocking.
    if ((!shared.doorbellRang || step === completeExit) && !shared.isStopping()) {
      try {
        const outcome = step(vcpu, machine.pio, machine.mmio, machine);
        if (outcome === "unknown") throw explainExit(vcpu, 0);
        if (outcome === "triple-fault") tripleFault(describeRegisters(vcpu));
        if (outcome !== "interrupted" && outcome !== "handled") machine.stop(outcome);
      } catch (error) {
        failed(error);
      }
    }
    shared.isMainInKvmRun = false;
  }

  /** Nothing is due here for so long. */
  #wait(ms: number): void {
    this.#dueMs = nowMs() + ms;
    this.#alarm = "unset";
  }

  /** Gets this thread out of KVM_RUN when something is due, or soon if somebody waits for it. */
  #setAlarm(): void {
    const { hearsHost, alarm } = this.#options;
    const wanted = hearsHost || phases > 1 ? "turns" : "due";
    if (wanted === this.#alarm) return;
    this.#alarm = wanted;
    const leftMs = Math.max(this.#dueMs - nowMs(), 0);
    alarm.set(wanted === "due" ? leftMs : Math.min(leftMs, HOST_TURN_MS));
  }
}
