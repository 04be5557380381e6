// The guest's run from its first instruction to its end, on the thread that owns the VM: what the
// doorbell asks for, watchers, failures, the end. What a caller may do when is vm.ts's matter.
import { plugKeyboard } from "../../devices/legacy/i8042.js";
import { isRtcInterruptUp } from "../../devices/legacy/rtc-state.js";
import { BOOT_TIMER_CHANNEL, CommandChannel } from "../../devices/pseudo/command-channel.js";
import { VcpuExitError } from "../errors.js";
import { BOOT_TIMER_GPA } from "../memory/layout.js";
import { installKickHandler } from "../sys/kick.js";
import { drainEventfd, pollReadable, type PollHandle } from "../sys/events.js";
import { KVM_IOEVENTFD_FLAG_DATAMATCH } from "../sys/kvm-abi.js";
import { ThreadAlarm } from "../sys/thread-alarm.js";
import { errorOfFailure } from "../vcpu/failure.js";
import type { VcpuFailure, VcpuTripleFault } from "../vcpu/messages.js";
import {
  MILESTONE_COMMAND_START,
  MILESTONE_INIT,
  VCPU_IDLE,
  VCPU_PARKED,
  VCPU_PAUSED,
  VCPU_RUNNING,
  VCPU_STOPPED,
  VmShared,
} from "../vcpu/shared.js";
import type { DeviceHost } from "../virtio/device-host.js";
import type { LiveParts } from "./builder.js";
import { ConsoleWatcher } from "./console-watcher.js";
import { HALT_WATCH_MS, HaltWatcher } from "./halt-watcher.js";
import { HostCallbacks, type VmHost } from "./host-callbacks.js";
import { restoreLegacy } from "./legacy-state.js";
import { MainPhase } from "./main-phase.js";
import { OutputPump } from "./output-pump.js";
import { RtcTimer } from "./rtc-timer.js";
import { DEVICE_WORDS, ThreadMachine, i8042Words, rtcWords, virtioWords } from "./thread-machine.js";
import { VcpuThreads } from "./vcpu-threads.js";
import { exitsByReason, reportExit, type VmExit, type VmStatistics } from "./vm-exit.js";

/** How long output may sit in KVM's ring when the guest does nothing else, `ms`. */
const IDLE_DRAIN_MS = 50;
/** Any byte makes the guest's terminal readable, which is what wakes its init. */
const WAKE_UP = Uint8Array.of(0);
/** A kick that a host has refused is made again after so many `ms`. */
const KICK_AGAIN_MS = 20;

export class VmRun {
  readonly machine: ThreadMachine;
  readonly devices: DeviceHost | undefined;
  readonly command: CommandChannel | undefined;
  readonly #parts: LiveParts;
  readonly #host: HostCallbacks;
  readonly #threads: VcpuThreads;
  readonly #pump: OutputPump;
  readonly #alarm = new ThreadAlarm();
  readonly #watcher = new ConsoleWatcher();
  readonly #rtc: RtcTimer;
  /** A virtio console takes input again, and the host does not know yet. */
  #hasConsoleRoom = false;
  #doorbell: PollHandle | undefined;
  readonly #haltWatcher: HaltWatcher;
  /** Only while the VM has a thread: one that waits costs nothing. */
  #timers: NodeJS.Timeout[] = [];
  /** Only while vCPUs are to leave KVM_RUN. */
  #kickAgain: NodeJS.Timeout | undefined;
  /** The first failure, of whatever value; it ends the VM. */
  #failure: { readonly error: unknown } | undefined;
  #faultRegisters: string | undefined;
  #sawInit = false;
  #sawCommand = false;
  #hasEnded = false;
  #onStopped: (() => void) | undefined;
  /** While the main thread runs vCPU 0. */
  #phase: MainPhase | undefined;
  /** Settles a pause that is on its way: every vCPU rests, or the guest has ended. */
  #onRest: (() => void) | undefined;

  constructor(parts: LiveParts, host: VmHost) {
    const [boot] = parts.vcpus;
    if (boot === undefined) throw new Error("A VM needs at least one vCPU");
    this.#parts = parts;
    this.#host = new HostCallbacks(host, (error) => {
      this.#pump.breakOff();
      this.fail(error);
    });
    const vcpus = parts.vcpus.length;
    const shared = VmShared.attach(parts.descriptor.shared, vcpus, DEVICE_WORDS);
    const wakeOwner = (): void => {
      this.machine.kicker.wakeMain();
    };
    this.#threads = new VcpuThreads({
      machine: parts,
      shared,
      heard: (vcpu, message) => {
        this.#hear(vcpu, message);
      },
      held: (areHeld) => {
        this.#watchGuest(areHeld);
      },
      kick: () => {
        this.#kick();
      },
      stopAtExit: () => {
        shared.tryStop("killed");
        this.machine.kicker.kickAllVcpus();
      },
      relayInterrupts: (isOn) => {
        this.devices?.relayInterrupts(isOn);
      },
      haltedForEver: () => {
        this.machine.stop("halted");
      },
      failed: (error) => {
        this.fail(error);
      },
    });
    const commandMemory = parts.command?.view;
    if (commandMemory !== undefined) this.command = new CommandChannel(commandMemory, () => this.input(WAKE_UP));
    this.#pump = new OutputPump({
      shared,
      host: this.#host,
      watcher: this.#watcher,
      command: this.command,
      consoleReady: () => {
        this.guarded(() => this.devices?.controls.console?.outputReady());
      },
      wakeOwner,
    });
    this.devices = parts.deviceSupport?.createHost(parts, {
      shared,
      vcpus,
      words: (device) => virtioWords(shared, device),
      wakeOwner,
      interruptRaised: () => {
        this.#threads.wake();
      },
      alarm: (delayMs) => {
        this.#alarm.set(delayMs);
      },
      failed: (error) => {
        this.fail(error);
      },
      report: (line) => {
        this.#host.log(line);
      },
      metadata: () => this.#host.metadata(),
      consoleHost: {
        transmit: (bytes) => this.#pump.takeFromConsole(bytes),
        roomAvailable: () => {
          // Not from inside: it may come while `input` has not yet said what it has taken.
          this.#hasConsoleRoom = true;
          wakeOwner();
        },
      },
    });
    this.#rtc = new RtcTimer(rtcWords(shared), {
      trigger: () => {
        this.guarded(() => {
          parts.rtcInterrupt.trigger();
        });
        this.#threads.wake();
      },
    });
    this.machine = new ThreadMachine(parts.descriptor, 0, boot, this.devices?.registers ?? [], () => {
      this.#threads.wake();
    });
    if (parts.config.keyboard) plugKeyboard(i8042Words(shared));
    if (parts.saved !== undefined) {
      restoreLegacy(shared, parts.saved.legacy);
      this.devices?.restore(parts.saved.devices);
      const { channel } = parts.saved;
      if (this.command !== undefined) this.command.restore(channel);
      else if (!channel.isNull) throw channel.wrong("null, as of a guest without a command channel");
    }
    this.#haltWatcher = new HaltWatcher(shared, this.machine.kicker, vcpus);
  }

  /** Runs the guest to its end. Rejects if the guest did something that cannot be answered, with the first failure. */
  async toEnd(threads: "main-first" | "threads"): Promise<VmExit> {
    const { shared } = this.machine;
    const stopped = new Promise<void>((resolve) => {
      this.#onStopped = resolve;
    });
    try {
      await this.#parts.loaded;
      this.#watch();
      if (this.#parts.saved !== undefined) this.#goOn();
      if (threads === "main-first") await this.#runMainFirst();
      else {
        this.#connectEvents();
        await this.#threads.schedule();
      }
    } catch (error) {
      this.fail(error);
    }
    this.#service();
    await stopped;
    this.#unwatch();
    this.machine.drainHeldBackWrites();
    await this.#pump.flush();
    const isSilent = this.#failure === undefined && this.#faultRegisters === undefined;
    // A thread's last message may still be on its way.
    if (isSilent && (shared.outcome === "triple-fault" || shared.outcome === "failed")) await this.#threads.ended();
    this.#pump.close();
    this.#hasEnded = true;
    if (this.#failure !== undefined) {
      this.#quietDevices();
      throw this.#failure.error;
    }
    return reportExit(shared, this.#watcher, this.#faultRegisters, this.devices?.counters() ?? {});
  }

  /** Restored devices are served, and give the signals that were on their way to the interrupt controllers. */
  #goOn(): void {
    this.devices?.unquiesce();
    this.machine.serial.signal();
    if (isRtcInterruptUp(rtcWords(this.machine.shared))) this.#parts.rtcInterrupt.trigger();
  }

  /** Brings every vCPU to rest between two instructions; false if the guest has ended instead. */
  async pause(): Promise<boolean> {
    const { shared } = this.machine;
    const resting = new Promise<void>((resolve) => {
      this.#onRest = resolve;
    });
    shared.isPausing = true;
    this.#kick();
    this.#service();
    await resting;
    if (shared.isStopping()) return false;
    await this.devices?.quiesce();
    return !shared.isStopping();
  }

  /** Lets every vCPU go on. */
  resume(): void {
    const { shared } = this.machine;
    for (const vcpu of this.#parts.vcpus) vcpu.tellOfPause();
    this.devices?.unquiesce();
    shared.isPausing = false;
    this.#wakeResting();
    if (this.#phase === undefined) {
      this.#threads.schedule().catch((error: unknown) => {
        this.fail(error);
      });
    }
  }

  /** Ends the guest as it stands, or the wait for its last output after it has ended by itself. */
  stop(): void {
    this.#pump.hurry();
    this.machine.stop("killed");
    this.#service();
  }

  /** Ends the VM, whose `toEnd` then rejects with the error; nothing once that has settled. */
  fail(error: unknown): void {
    if (this.#hasEnded) return;
    this.#failure ??= { error: error instanceof Error ? error : new VcpuExitError(String(error)) };
    this.machine.stop("failed");
    this.#service();
  }

  /** Runs code of the devices for somebody outside; what it throws ends this VM. */
  guarded<Result>(task: () => Result): Result | undefined {
    try {
      return task();
    } catch (error) {
      this.fail(error);
      return undefined;
    }
  }

  /** Bytes for the guest's terminal; the number that it takes now. */
  input(bytes: Uint8Array): number {
    return this.guarded(() => (this.devices?.controls.console ?? this.machine.serial).receive(bytes)) ?? 0;
  }

  /** `hasGuest`: a guest that could answer may be asked for news. */
  statistics(hasGuest: boolean): VmStatistics {
    return {
      exits: exitsByReason(this.machine.shared),
      devices: this.devices?.counters() ?? {},
      balloon: this.guarded(() => this.devices?.controls.balloon?.statistics(hasGuest)),
    };
  }

  /** Resolves once no thread of the VM is left. */
  async threadsEnded(): Promise<void> {
    this.#hasEnded = true;
    this.#unwatch();
    this.#pump.close();
    this.#alarm.close();
    await this.#threads.ended();
  }

  #watch(): void {
    installKickHandler();
    const { doorbellFd } = this.#parts.descriptor;
    this.#doorbell = pollReadable(doorbellFd, () => {
      drainEventfd(doorbellFd);
      this.#service();
    });
  }

  /** While it runs, or not. */
  #watchGuest(isRunning: boolean): void {
    if (!isRunning) for (const timer of this.#timers.splice(0)) clearInterval(timer);
    if (!isRunning || this.#timers.length > 0 || this.#doorbell === undefined) return;
    const { shared } = this.machine;
    // A guest that only writes to the transmitter never exits: its bytes are fetched from the ring.
    const idleDrain = setInterval(() => {
      // With a reader that takes nothing, they stay there: KVM's ring fills up, and the guest comes to a thread
      // that waits. Fetched, they would end in an output ring that is full.
      if (!shared.outputIsHigh() && !shared.shallRest) this.machine.drainHeldBackWrites();
      this.#pump.pump();
    }, IDLE_DRAIN_MS);
    const haltWatch = setInterval(() => {
      if (!shared.shallRest && this.#haltWatcher.tick()) this.machine.stop("halted");
    }, HALT_WATCH_MS);
    this.#timers.push(idleDrain, haltWatch);
  }

  /** Brings all vCPUs out of KVM_RUN, to look at the shared words. */
  #kick(): void {
    const { shared, kicker } = this.machine;
    kicker.kickAllVcpus();
    this.#kickAgain ??= setInterval(() => {
      if (shared.isStopping() || (shared.shallRest && !this.#allRest())) kicker.kickAllVcpus();
      else this.#kickNoMore();
      this.#service();
    }, KICK_AGAIN_MS);
  }

  #kickNoMore(): void {
    clearInterval(this.#kickAgain);
    this.#kickAgain = undefined;
  }

  #unwatch(): void {
    this.#rtc.close();
    this.#doorbell?.close();
    this.#doorbell = undefined;
    this.#watchGuest(false);
    this.#kickNoMore();
  }

  /** Not before this thread has stopped to run a vCPU. */
  #connectEvents(): void {
    this.devices?.connectEvents();
    const { command, descriptor, hasIoeventfd, vm } = this.#parts;
    if (command === undefined || !hasIoeventfd) return;
    // Init's bell ends in the kernel, and the guest goes on at once.
    const register = BOOT_TIMER_GPA + BOOT_TIMER_CHANNEL;
    vm.connectIoeventfd(descriptor.doorbellFd, register, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 1n);
  }

  async #runMainFirst(): Promise<void> {
    const [vcpu] = this.#parts.vcpus;
    if (vcpu === undefined) return;
    const phase = new MainPhase({
      vcpu,
      vcpus: this.#parts.vcpus.length,
      machine: this.machine,
      alarm: this.#alarm,
      threads: this.#threads,
      hearsHost: this.#parts.hearsOwner || this.devices?.hearsHost === true,
      devices: this.devices,
      pump: this.#pump,
      service: () => {
        this.#service();
      },
      connectEvents: () => {
        this.#connectEvents();
      },
      tripleFault: (registers) => {
        this.#faultRegisters = registers;
      },
      failed: (error) => {
        this.fail(error);
      },
    });
    this.#phase = phase;
    this.#watchGuest(true);
    await phase.run();
    this.#phase = undefined;
    if (!this.machine.shared.isStopping()) this.#threads.share();
  }

  /** After a failure devices may be in any state: their host sides shall not go on calling them. */
  #quietDevices(): void {
    try {
      this.devices?.close();
    } catch {
      // The first failure is the news.
    }
  }

  #hear(vcpu: number, message: VcpuFailure | VcpuTripleFault): void {
    if (message.code === "TRIPLE_FAULT") {
      this.#faultRegisters = message.registers;
      return;
    }
    this.machine.shared.setVcpuState(vcpu, VCPU_STOPPED);
    this.fail(errorOfFailure(message));
  }

  /** What this thread does when the doorbell rings. */
  #service(): void {
    const { shared } = this.machine;
    shared.answerDoorbell();
    // After a failure they may be in any state.
    if (this.#failure === undefined) this.devices?.service();
    this.#rtc.service();
    this.#pump.pump();
    if (shared.takeInputRoom() || this.#hasConsoleRoom) {
      this.#hasConsoleRoom = false;
      this.#host.inputRoom();
    }
    if (this.command?.takeRoom() === true) this.#host.commandRoom();
    const init = this.#sawInit ? undefined : shared.milestone(MILESTONE_INIT);
    if (init !== undefined) {
      this.#sawInit = true;
      this.#host.initStarted(init);
    }
    if (!this.#sawCommand && shared.milestone(MILESTONE_COMMAND_START) !== undefined) {
      this.#sawCommand = true;
      this.#host.commandStarted();
    }
    if (shared.takeSnapshotPoint() && !this.#host.snapshotPoint()) {
      shared.isPausing = false;
      this.#wakeResting();
    }
    if (shared.shallRest && !shared.isStopping() && this.#allRest()) this.#rested();
    if (!shared.isStopping()) return;
    this.#threads.unschedule();
    this.#onRest?.();
    this.#kick();
    this.#wakeResting();
    let running = 0;
    for (let index = 0; index < this.#parts.vcpus.length; index++) {
      // A thread that has not entered the guest yet finds the vCPU stopped and ends; and one that rests may have none.
      for (const state of [VCPU_IDLE, VCPU_PARKED]) shared.claimVcpu(index, state, VCPU_STOPPED);
      if (shared.vcpuState(index) !== VCPU_STOPPED) running++;
    }
    if (running === 0) this.#onStopped?.();
  }

  #allRest(): boolean {
    return this.#phase === undefined ? this.#threads.allRest : this.#phase.isResting && this.#threads.othersRest;
  }

  /** Every vCPU rests, as it was asked to. */
  #rested(): void {
    const { shared } = this.machine;
    if (!shared.isPausing) {
      this.#threads.rested();
      return;
    }
    if (this.#phase === undefined) {
      this.#threads.unschedule();
      this.#threads.giveBack();
    }
    this.#onRest?.();
    this.#onRest = undefined;
  }

  #wakeResting(): void {
    this.#phase?.wake();
    this.#parts.vcpus.forEach((_, index) => this.machine.shared.claimVcpu(index, VCPU_PAUSED, VCPU_RUNNING));
  }
}
