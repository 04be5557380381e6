// A VM's life: started, running on the main thread or on threads of its own, stopped, closed.
// DESIGN.md, "Threads", has the picture and the reasons.
import type { LiveParts } from "./builder.js";
import { nowMs } from "../host/clock.js";
import { balloonProblem } from "../config/balloon.js";
import { ConsoleOutput } from "./console-output.js";
import { ConsoleWatcher } from "./console-watcher.js";
import type { DeviceHost } from "../virtio/device-host.js";
import { ConfigError, HostError, VcpuExitError } from "../errors.js";
import { HALT_WATCH_MS, HaltWatcher } from "./halt-watcher.js";
import { MIB } from "../memory/layout.js";
import { alarmMainThread, installKickHandler } from "../sys/kick.js";
import { drainEventfd, pollReadable, type PollHandle } from "../sys/events.js";
import { describeRegisters, explainExit } from "../vcpu/explain-exit.js";
import type { VcpuThread } from "./vcpu-thread.js";
import { runVcpu } from "../vcpu/loop.js";
import { DEVICE_WORDS, ThreadMachine, virtioWords } from "./thread-machine.js";
import type { VcpuFailure } from "../vcpu/messages.js";
import {
  MILESTONE_COMMAND_START,
  MILESTONE_FIRST_RUN,
  MILESTONE_INIT,
  VCPU_IDLE,
  VCPU_RUNNING,
  VCPU_STANDBY,
  VCPU_STOPPED,
  VmShared,
  type Outcome,
} from "../vcpu/shared.js";
import { exitsByReason, reportExit, type VmExit, type VmStatistics } from "./vm-exit.js";

/** What the VM asks of whoever owns its console. Called on the main thread only. */
export interface VmHost {
  /** Takes the bytes; calls `done` once they are written, and gets no more before. */
  output(bytes: Uint8Array, done: () => void): void;
  /** The guest has room for input again, after `input` took less than it was given. */
  inputRoom?(): void;
  /** The guest's init has set its terminal up and starts the command. */
  commandStarted?(): void;
  /** A device has met something on the host that somebody should know. */
  log?(line: string): void;
}

export interface StartOptions {
  /**
   * "main-first" runs vCPU 0 on the calling thread until the guest's init is up, which spares
   * a thread's start-up before the first KVM_RUN but blocks the event loop for that long.
   * "threads" keeps the event loop free from the beginning.
   */
  readonly threads: "main-first" | "threads";
}

/** The longest that the main thread stays with vCPU 0 without a sign of the guest's init, `ms`. */
const MAIN_PHASE_MS = 2000;
/**
 * How long the main thread stays after init, `ms`. A short command ends before: then no thread is
 * started at all, whose start-up would take a processor from the guest.
 */
const AFTER_INIT_MS = 100;
/** A successor rings when it is ready; only one that never gets there is waited for like this, `ms`. */
const SUCCESSOR_MS = 5000;
/** How long what comes from the host waits while the main thread runs vCPU 0, `ms`. */
const HOST_TURN_MS = 20;
/** With more vCPUs, their threads are started this long after vCPU 0, `ms`. */
const SMP_START_MS = 2;
/** What a message of a thread that has just stopped may take, `ms`. */
const MESSAGE_MS = 20;
/** How long output gathers after some has been written, `ms`. */
const GATHER_MS = 2;
/** How long output may sit in KVM's ring when the guest does nothing else, `ms`. */
const IDLE_DRAIN_MS = 50;
/** Ctrl-O: Linux's hvc console takes it for a break. */
const HVC_SYSRQ = Uint8Array.of(0x0f);
/** What the last output of a VM that shall stop may take to be written, `ms`. */
const LAST_OUTPUT_MS = 2000;

/** A VM that has its memory, vCPUs and devices; build one with builder.ts. */
export class Vm {
  readonly #parts: LiveParts;
  readonly #host: VmHost;
  readonly #machine: ThreadMachine;
  readonly #devices: DeviceHost | undefined;
  readonly #console = new ConsoleWatcher();
  /** What a virtio console has to say. */
  readonly #virtioOutput = new ConsoleOutput();
  /** The virtio console waits until its output has been taken. */
  #isVirtioOutputStopped = false;
  /** It takes input again, and the host does not know yet. */
  #hasConsoleRoom = false;
  readonly #threads: VcpuThread[] = [];
  #doorbell: PollHandle | undefined;
  #failure: Error | undefined;
  #faultRegisters: string | undefined;
  #isWriting = false;
  #sawCommand = false;
  #writtenWaiters: (() => void)[] = [];
  #onStopped: (() => void) | undefined;
  /** Called LAST_OUTPUT_MS after somebody has asked for the end. */
  #onImpatient: (() => void) | undefined;
  #impatience: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(parts: LiveParts, host: VmHost) {
    const [boot] = parts.vcpus;
    if (boot === undefined) throw new HostError("A VM needs at least one vCPU");
    this.#parts = parts;
    this.#host = host;
    const vcpus = parts.vcpus.length;
    const shared = VmShared.attach(parts.descriptor.shared, vcpus, DEVICE_WORDS);
    this.#devices = parts.deviceSupport?.createHost(parts, {
      shared,
      vcpus,
      words: (device) => virtioWords(shared, device),
      wakeOwner: () => {
        this.#machine.kicker.wakeMain();
      },
      alarm: alarmMainThread,
      failed: (error) => {
        this.#fail(error);
      },
      report: (line) => this.#host.log?.(line),
      consoleHost: {
        transmit: (bytes) => this.#takeVirtioOutput(bytes),
        roomAvailable: () => {
          // Not from inside: it may come while `input` has not yet said what it has taken.
          this.#hasConsoleRoom = true;
          this.#machine.kicker.wakeMain();
        },
      },
    });
    this.#machine = new ThreadMachine(parts.descriptor, 0, boot, this.#devices?.transports ?? []);
  }

  /** Runs the guest to its end. Rejects if the guest did something that cannot be answered. */
  async start({ threads }: StartOptions): Promise<VmExit> {
    const { descriptor } = this.#parts;
    const { shared } = this.#machine;
    installKickHandler();
    const stopped = new Promise<void>((resolve) => {
      this.#onStopped = resolve;
    });
    this.#doorbell = pollReadable(descriptor.doorbellFd, () => {
      drainEventfd(descriptor.doorbellFd);
      this.#service();
    });
    const idleDrain = setInterval(() => {
      this.#drainWhileIdle();
    }, IDLE_DRAIN_MS);
    const { kicker } = this.#machine;
    const haltWatcher = new HaltWatcher(shared, kicker, this.#parts.vcpus.length);
    const haltWatch = setInterval(() => {
      if (haltWatcher.tick()) this.#machine.stop("halted");
    }, HALT_WATCH_MS);
    if (threads === "main-first") await this.#runOnMain();
    else {
      this.#devices?.connectEvents();
      await this.#startThreads(0, false);
    }
    this.#service();
    await stopped;
    clearInterval(idleDrain);
    clearInterval(haltWatch);
    this.#machine.drainHeldBackWrites();
    await this.#flushOutput();
    // A thread's last message may still be on its way.
    if (shared.outcome === "triple-fault" && this.#faultRegisters === undefined) await lastMessages();
    if (this.#failure !== undefined) throw this.#failure;
    return reportExit(shared, this.#console, this.#faultRegisters, this.#devices?.counters() ?? {});
  }

  /** Gives bytes to the guest's terminal; the number that it takes now. The rest fits after `inputRoom`. */
  input(bytes: Uint8Array): number {
    return this.#devices?.controls.console?.receive(bytes) ?? this.#machine.serial.receive(bytes);
  }

  /** A break condition on the serial line (Linux: SysRq), and what stands for one on a virtio console. */
  inputBreak(): void {
    const console = this.#devices?.controls.console;
    if (console === undefined) this.#machine.serial.receiveBreak();
    else console.receive(HVC_SYSRQ);
  }

  /** Tells the guest the size of its terminal; only a virtio console can. */
  resize(size: { readonly columns: number; readonly rows: number }): void {
    this.#devices?.controls.console?.resize(size);
  }

  /** Asks the guest to give up so many `MiB` of its memory in all. Throws ConfigError without a balloon, or for too many. */
  setBalloon(targetMib: number): void {
    const balloon = this.#devices?.controls.balloon;
    const problem =
      balloon === undefined
        ? "This VM has no balloon"
        : balloonProblem(targetMib, this.#parts.descriptor.memorySize / MIB);
    if (problem !== undefined) throw new ConfigError([problem]);
    balloon?.setTarget(targetMib * MIB);
  }

  /** What the VM has used so far. */
  statistics(): VmStatistics {
    return {
      exits: exitsByReason(this.#machine.shared),
      devices: this.#devices?.counters() ?? {},
      balloon: this.#devices?.controls.balloon?.statistics(),
    };
  }

  /** Ends the guest as it stands, or the wait for its last output after it has ended by itself. */
  stop(): void {
    this.#impatience ??= setTimeout(() => this.#onImpatient?.(), LAST_OUTPUT_MS).unref();
    this.#machine.stop("killed");
    this.#service();
  }

  /**
   * Lets go of what the devices hold on the host: files, network interfaces, socket files. Only after
   * `start` has settled, and enough for a process that ends then.
   */
  closeDevices(): void {
    this.#devices?.close();
    this.#parts.closeDevices();
  }

  /** Frees everything. Only after `start` has settled; later calls do nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#doorbell?.close();
    await Promise.all(this.#threads.map((thread) => thread.ended()));
    this.closeDevices();
    this.#parts.close();
  }

  #fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new VcpuExitError(String(error));
    this.#machine.stop("failed");
  }

  /** A guest that only writes to the transmitter never exits: its bytes are fetched from the ring. */
  #drainWhileIdle(): void {
    // With a reader that takes nothing, they stay there: KVM's ring fills up, and the guest comes to a thread
    // that waits. Fetched, they would end in an output ring that is full.
    if (!this.#machine.shared.outputIsHigh()) this.#machine.drainHeldBackWrites();
    this.#pumpOutput();
  }

  /** The main thread as vCPU 0's thread; returns once it has ended or a worker has taken over. */
  async #runOnMain(): Promise<void> {
    const { vcpus } = this.#parts;
    const [vcpu] = vcpus;
    const machine = this.#machine;
    const { shared } = machine;
    if (vcpu === undefined) return;
    let deadline = vcpus.length > 1 ? SMP_START_MS : MAIN_PHASE_MS;
    let smpStarted = vcpus.length === 1;
    let successorStarted = false;
    let initSeen: number | undefined;
    this.#alarm(deadline);
    this.#setMainPhase(true);
    const started = nowMs();
    shared.setVcpuThread(0, process.pid);
    // The slot stays idle, so that a successor can put itself on standby in it.
    shared.markMilestone(MILESTONE_FIRST_RUN, process.hrtime.bigint());
    for (;;) {
      shared.isMainInKvmRun = true;
      // A bell that rang before the flag was up woke nobody: look once more before blocking.
      if (!shared.doorbellRang && !shared.isStopping()) {
        try {
          const outcome = runVcpu(vcpu, machine.pio, machine.mmio, machine);
          if (outcome === "unknown") throw explainExit(vcpu, 0);
          if (outcome === "triple-fault") this.#faultRegisters = describeRegisters(vcpu);
          if (outcome !== "interrupted" && outcome !== "handled") machine.stop(outcome);
        } catch (error) {
          this.#fail(error);
        }
      }
      shared.isMainInKvmRun = false;
      this.#service();
      if (shared.isStopping()) break;
      // Let signals, standard input and finished writes in.
      await new Promise((resolve) => setImmediate(resolve));
      if (shared.outputIsHigh() || this.#isVirtioOutputStopped) await this.#written();
      if (shared.isStopping()) break;

      if (!smpStarted && nowMs() - started >= deadline) {
        smpStarted = true;
        await this.#startThreads(1, false);
        deadline = MAIN_PHASE_MS;
        this.#alarm(deadline);
      }
      if (initSeen === undefined && shared.milestone(MILESTONE_INIT) !== undefined) {
        initSeen = nowMs();
        if (!successorStarted) this.#alarm(AFTER_INIT_MS);
      }
      const mayLeave =
        nowMs() - started >= MAIN_PHASE_MS || (initSeen !== undefined && nowMs() - initSeen >= AFTER_INIT_MS);
      if (!successorStarted && mayLeave) {
        successorStarted = true;
        // Not again and again: each alarm is an exit, and takes its time from the guest.
        this.#alarm(SUCCESSOR_MS);
        await this.#addThread(0, true);
      }
      if (shared.vcpuState(0) === VCPU_STANDBY && successorStarted) {
        // The worker wakes up and goes on with the same vCPU.
        alarmMainThread(0);
        this.#setMainPhase(false);
        this.#devices?.connectEvents();
        shared.setVcpuState(0, VCPU_RUNNING);
        return;
      }
    }
    alarmMainThread(0);
    this.#setMainPhase(false);
    shared.setVcpuThread(0, 0);
    shared.setVcpuState(0, VCPU_STOPPED);
    this.#service();
  }

  /** Gets the main thread out of KVM_RUN again and again, at least so often. */
  #alarm(everyMs: number): void {
    const mostMs = this.#devices?.hearsHost === true ? HOST_TURN_MS : everyMs;
    alarmMainThread(Math.min(everyMs, mostMs));
  }

  #setMainPhase(value: boolean): void {
    if (this.#devices !== undefined) this.#devices.isMainPhase = value;
  }

  async #startThreads(from: number, standby: boolean): Promise<void> {
    for (let index = from; index < this.#parts.vcpus.length; index++) await this.#addThread(index, standby);
  }

  async #addThread(index: number, standby: boolean): Promise<void> {
    const { shared } = this.#machine;
    // Only now: node:worker_threads brings all of Node's streams, 4 ms before the first KVM_RUN.
    const { VcpuThread } = await import("./vcpu-thread.js");
    const thread = new VcpuThread(this.#parts.descriptor, index, standby, (message) => {
      if (message.code === "TRIPLE_FAULT") {
        this.#faultRegisters = message.registers;
        return;
      }
      this.#failure ??= errorOf(message);
      this.#machine.stop("failed");
      shared.setVcpuState(index, VCPU_STOPPED);
      this.#service();
    });
    this.#threads.push(thread);
  }

  /** What the main thread does when the doorbell rings. */
  #service(): void {
    const { shared, kicker } = this.#machine;
    shared.answerDoorbell();
    this.#devices?.service();
    this.#pumpOutput();
    if (shared.takeInputRoom() || this.#hasConsoleRoom) {
      this.#hasConsoleRoom = false;
      this.#host.inputRoom?.();
    }
    if (!this.#sawCommand && shared.milestone(MILESTONE_COMMAND_START) !== undefined) {
      this.#sawCommand = true;
      this.#host.commandStarted?.();
    }
    if (!shared.isStopping()) return;
    kicker.kickAllVcpus();
    let running = 0;
    for (let index = 0; index < this.#parts.vcpus.length; index++) {
      // A thread that has not entered the guest yet finds the vCPU stopped and ends.
      shared.claimVcpu(index, VCPU_IDLE, VCPU_STOPPED);
      if (shared.vcpuState(index) !== VCPU_STOPPED) running++;
    }
    if (running === 0) this.#onStopped?.();
  }

  /** False if the console should wait, until `outputReady`. */
  #takeVirtioOutput(bytes: Uint8Array): boolean {
    const { shared, kicker } = this.#machine;
    this.#virtioOutput.push(bytes);
    this.#isVirtioOutputStopped = this.#virtioOutput.isHigh;
    // Inside the main thread's exit: what has been written is only seen in a turn of the event loop.
    if (shared.isMainInKvmRun) kicker.wakeMain();
    else if (!shared.isGathering() || this.#isVirtioOutputStopped) this.#pumpOutput();
    return !this.#isVirtioOutputStopped;
  }

  #pumpOutput(): void {
    const { shared } = this.#machine;
    if (this.#isWriting) return;
    const serial = shared.peekOutput();
    const bytes = serial.length > 0 ? serial : this.#virtioOutput.take();
    if (bytes.length === 0) {
      for (const resolve of this.#writtenWaiters.splice(0)) resolve();
      return;
    }
    this.#console.see(bytes);
    this.#isWriting = true;
    this.#gather();
    this.#host.output(bytes, () => {
      this.#isWriting = false;
      shared.consumeOutput(serial.length);
      if (this.#isVirtioOutputStopped && !this.#virtioOutput.isHigh) {
        this.#isVirtioOutputStopped = false;
        this.#devices?.controls.console?.outputReady();
      }
      const isUrgent = shared.outputIsHigh() || this.#virtioOutput.isHigh || this.#writtenWaiters.length > 0;
      if (!shared.isGathering() || isUrgent) this.#pumpOutput();
    });
  }

  /**
   * After some output, more is likely: for a moment the guest's threads do not wake this one for
   * each piece. A line a wake-up would cost more than the line.
   */
  #gather(): void {
    const { shared } = this.#machine;
    if (shared.isGathering() || shared.isMainInKvmRun) return;
    shared.setGathering(true);
    setTimeout(() => {
      shared.setGathering(false);
      this.#pumpOutput();
    }, GATHER_MS);
  }

  /** Resolves once all output so far has been written. */
  #written(): Promise<void> {
    return new Promise((resolve) => {
      this.#writtenWaiters.push(resolve);
      this.#pumpOutput();
    });
  }

  /** A reader may take its time, unless somebody wants the end now. */
  async #flushOutput(): Promise<void> {
    const impatient = new Promise<void>((resolve) => {
      this.#onImpatient = resolve;
    });
    await Promise.race([this.#written(), impatient]);
    clearTimeout(this.#impatience);
  }
}

function lastMessages(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, MESSAGE_MS));
}

function errorOf(failure: VcpuFailure): Error {
  const error = new VcpuExitError(failure.message, { cure: failure.cure });
  if (failure.code === "BUG" && failure.stack !== undefined) error.stack = failure.stack;
  return error;
}

export type { Outcome, VmExit };
