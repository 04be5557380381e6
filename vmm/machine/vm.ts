// The public door to a VM: each method asks life.ts whether its time has come, checks what it is given, and
// leaves the rest to vm-run.ts.
//
//                        built            running           stopped          closed
//   start                runs the guest   VmStateError      VmStateError     VmStateError
//   pause                VmStateError     vCPUs rest       VmStateError     VmStateError
//   resume               VmStateError     nothing          VmStateError     VmStateError
//   stop                 will not run     ends the guest    nothing          nothing
//   input                taken            taken             takes 0 bytes    takes 0 bytes
//   inputBreak, resize   done             done              nothing          nothing
//   setBalloon           done             done              nothing          nothing
//   pressCtrlAltDel      done             done              nothing          nothing
//   updateDisk, …Net     done             done              VmStateError     VmStateError
//   statistics           what is so far   what is so far    the last         the last
//   commandInput         taken            taken            takes 0 bytes    takes 0 bytes
//   endCommandInput      done             done             nothing          nothing
//   closeDevices         done, never runs VmStateError      done             nothing
//   close                frees            stops, then frees frees            nothing
//
// A paused VM is as a running one, but that `pause` does nothing and `resume` lets it go on.
// A guest ends when it likes, so what it might still have taken is dropped after its end, and is no error.
import type { InputUrgency } from "../../devices/pseudo/command-channel.js";
import { encodeRestoreBlock, type RestoreBlock } from "../../devices/pseudo/restore-block.js";
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import { StateError } from "../../devices/state.js";
import { ConfigError, SnapshotError } from "../errors.js";
import type { SavedMemory } from "../memory/saved-memory.js";
import { checkBytes, checkSize, startThreads, type StartOptions, type TerminalSize } from "./arguments.js";
import { buildVm, restoreVm, type BuildOptions, type LiveParts, type SavedVm } from "./builder.js";
import type { ResolvedConfig } from "../config/types.js";
import { DeviceUpdates, type DiskUpdate, type NetUpdate } from "./device-updates.js";
import { changeGeneration } from "./generation-id.js";
import { acpiPmWords } from "./thread-machine.js";
import { captureVm, type Capture } from "./capture.js";
import type { VmHost } from "./host-callbacks.js";
import { PageWatches, type PageWatch } from "./page-watches.js";
import { Life, type VmState } from "./life.js";
import type { VmExit, VmStatistics } from "./vm-exit.js";
import { VmRun } from "./vm-run.js";

/** What the guest has in memory. */
export type OpenMemory = Pick<LiveParts, "memory" | "command" | "config" | "quirks" | "saved">;

/** A VM that has its memory, vCPUs and devices. */
export class Vm {
  readonly #life = new Life();
  readonly #parts: LiveParts;
  readonly #run: VmRun;
  readonly #updates: DeviceUpdates;
  /** Settles when the run has. */
  #ended: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;
  #pausing: Promise<void> | undefined;
  /** Settles when nobody needs it to stay paused and whole. */
  #held: Promise<void> | undefined;
  /** They read its memory. */
  readonly #readers = new Set<Promise<void>>();
  #watches: PageWatches | undefined;

  /**
   * A VM that goes on where another was saved; `start` lets it. Throws what restoreVm throws.
   * @internal
   */
  static restore(
    config: ResolvedConfig,
    saved: SavedVm,
    source: SavedMemory,
    host: VmHost,
    options: BuildOptions = {},
  ): Vm {
    return Vm.#around(restoreVm(config, saved, source, options), host);
  }

  /**
   * Throws what buildVm throws, and leaves nothing behind then.
   * @internal
   */
  static build(config: ResolvedConfig, host: VmHost, options: BuildOptions = {}): Vm {
    return Vm.#around(buildVm(config, options), host);
  }

  static #around(parts: LiveParts, host: VmHost): Vm {
    try {
      return new Vm(parts, host);
    } catch (error) {
      parts.abandon();
      throw error;
    }
  }

  private constructor(parts: LiveParts, host: VmHost) {
    this.#parts = parts;
    this.#run = new VmRun(parts, host);
    this.#updates = new DeviceUpdates(parts.config, this.#run.devices, (task) => this.#run.guarded(task));
  }

  /** Where it is in its life. */
  get state(): VmState {
    return this.#life.state;
  }

  /** What the kernel's file turned out to be. */
  get kernelFormat(): LiveParts["kernelFormat"] {
    return this.#parts.kernelFormat;
  }

  /** What it was made of, with what was changed since. */
  get config(): ResolvedConfig {
    return this.#updates.config;
  }

  /**
   * What was booted. For vmm/snapshot.
   * @internal
   */
  get images(): LiveParts["images"] {
    return this.#parts.images;
  }

  /**
   * Runs the guest to its end, once in a VM's life. Rejects if the guest did something that cannot be answered,
   * if the host ran out of something, or with what a callback has thrown.
   */
  async start(options?: StartOptions): Promise<VmExit> {
    const threads = startThreads(options);
    if (this.#life.state !== "built") throw this.#life.refuse("start");
    this.#life.enter("running", "start");
    const run = this.#run.toEnd(threads).finally(() => {
      this.#life.enter("stopped", "start");
    });
    this.#ended = run.catch(() => undefined);
    return run;
  }

  /**
   * Brings every vCPU to rest between two instructions, and every device to where nothing is in flight. Resolves once
   * that is so. Rejects with VmStateError if the guest ends instead, with SnapshotError if what it has written to a disk
   * cannot be brought to the medium: then it goes on.
   */
  pause(): Promise<void> {
    if (this.#life.state === "paused") return Promise.resolve();
    this.#pausing ??= this.#pause().finally(() => {
      this.#pausing = undefined;
    });
    return this.#pausing;
  }

  /** Lets a paused VM go on, at once: what was due meanwhile comes now, and its clocks are right. */
  resume(): void {
    const before = this.#pausing ?? this.#held;
    if (before !== undefined) {
      void before.then(
        () => {
          if (this.#life.hasGuest) this.resume();
        },
        () => undefined,
      );
      return;
    }
    if (this.#life.state === "running") return;
    if (this.#life.state !== "paused") throw this.#life.refuse("resume");
    this.#life.enter("running", "resume");
    this.#run.resume();
  }

  /**
   * All of the VM but its memory, which is in `memory`. Throws VmStateError unless it is paused. For vmm/snapshot.
   * @internal
   */
  capture(): Capture {
    if (this.#life.state !== "paused") throw this.#life.refuse("capture");
    return captureVm({ ...this.#parts, config: this.config }, this.#run);
  }

  /**
   * Pauses it and does the task with all of it: until that is done it is not resumed, and its memory stays. The guest may be
   * stopped meanwhile. Rejects as `pause` does.
   * @internal
   */
  async whilePaused<Result>(task: (capture: Capture) => Promise<Result>): Promise<Result> {
    const before = this.#held;
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    this.#held = held;
    try {
      await before;
      // Before anything stands still: an assigned device would go on meanwhile.
      this.#run.devices?.checkSaveable();
      await this.pause();
      return await task(this.capture());
    } finally {
      if (this.#held === held) this.#held = undefined;
      release();
    }
  }

  /**
   * Its memory stays until the task is done, whatever becomes of the guest.
   * @internal
   */
  async whileOpen<Result>(task: (memory: OpenMemory) => Promise<Result>): Promise<Result> {
    if (!this.#life.hasGuest) throw this.#life.refuse("whileOpen");
    let release = (): void => undefined;
    const reader = new Promise<void>((resolve) => (release = resolve));
    this.#readers.add(reader);
    try {
      await this.#parts.loaded;
      return await task({ ...this.#parts, config: this.config });
    } finally {
      this.#readers.delete(reader);
      release();
    }
  }

  /**
   * Another process may go on with its disks: it must not be resumed before `takeBack`. Throws VmStateError unless it is
   * paused.
   * @internal
   */
  letGo(): void {
    if (this.#life.state !== "paused") throw this.#life.refuse("letGo");
    this.#run.devices?.letGo();
  }

  /**
   * Its disks are its own again. Throws DiskError if another process has one.
   * @internal
   */
  takeBack(): void {
    if (this.#life.state === "paused") this.#run.devices?.takeBack();
  }

  /**
   * Follows which pages of RAM change. Throws VmStateError without a guest. For vmm/snapshot.
   * @internal
   */
  watchPages(): PageWatch {
    if (!this.#life.hasGuest) throw this.#life.refuse("watchPages");
    return (this.#watches ??= this.#followPages()).watch();
  }

  #followPages(): PageWatches {
    return new PageWatches({ ...this.#parts, follow: (isOn) => this.#run.devices?.followPages(isOn) });
  }

  async #pause(): Promise<void> {
    if (this.#life.state !== "running") throw this.#life.refuse("pause");
    let rests: boolean;
    try {
      rests = await this.#run.pause();
    } catch (error) {
      // A device does not come to rest: the guest goes on.
      this.#run.resume();
      if (!(error instanceof StateError)) throw error;
      throw new SnapshotError(`The guest cannot be paused: ${error.message}`, { cause: error });
    }
    if (!rests) await this.#ended;
    this.#life.enter("paused", "pause");
  }

  /**
   * Tells a guest that begins with a template who it is, and its command; before `start`. Throws VmStateError later,
   * ConfigError for a command that is too long or a guest that does not wait for one.
   * @internal
   */
  giveCommand(block: RestoreBlock): void {
    if (this.#life.state !== "built") throw this.#life.refuse("giveCommand");
    this.#changeGeneration();
    const bytes = encodeRestoreBlock(block);
    if (bytes === undefined) throw new ConfigError(["The command and its variables are longer than 128 KiB"]);
    if (this.#run.command?.putRestoreBlock(bytes) !== true) {
      throw new ConfigError(["This guest does not wait for a command"]);
    }
  }

  /**
   * Tells a guest that goes on from a snapshot who it is now; before `start`. False if it has no init that hears it:
   * one of vmlet's whose command has the channel. A kernel that has a driver for it hears by ACPI that it is another.
   * Throws VmStateError later.
   * @internal
   */
  tellIdentity(identity: Omit<RestoreBlock, "command">): boolean {
    if (this.#life.state !== "built") throw this.#life.refuse("tellIdentity");
    this.#changeGeneration();
    const bytes = encodeRestoreBlock({ ...identity, command: [] });
    if (identity.hasOtherHost === true) this.#run.command?.dropOutput();
    return bytes !== undefined && this.#run.command?.putNotice(bytes) === true;
  }

  #changeGeneration(): void {
    const { memory, systemControl } = this.#parts;
    changeGeneration(memory, acpiPmWords(this.#run.machine.shared), systemControl);
  }

  /** Gives bytes to the guest's terminal; the number that it takes now. The rest fits after `inputRoom`. */
  input(bytes: Uint8Array): number {
    checkBytes(bytes);
    if (!this.#life.hasGuest) return 0;
    return this.#run.input(bytes);
  }

  /** The guest's init has the command's channel open: its bytes take that, and not the terminal. */
  get hasCommandChannel(): boolean {
    return this.#run.command?.isOpen ?? false;
  }

  /** Gives bytes to the command; the number that it takes now. The rest fits after `commandRoom`. */
  commandInput(bytes: Uint8Array): number {
    checkBytes(bytes);
    return this.#life.hasGuest ? (this.#run.command?.putInput(bytes) ?? 0) : 0;
  }

  /**
   * As `commandInput`, for what the guest's agent need not be woken for at once.
   * @internal
   */
  agentInput(bytes: Uint8Array, urgency: InputUrgency): number {
    return this.#life.hasGuest ? (this.#run.command?.putInput(bytes, urgency) ?? 0) : 0;
  }

  /** The command finds the end of its input after what it was given. */
  endCommandInput(): void {
    if (this.#life.hasGuest) this.#run.command?.endInput();
  }

  /** A break condition on the serial line (Linux: SysRq), and what stands for one on a virtio console. */
  inputBreak(): void {
    if (!this.#life.hasGuest) return;
    const { machine, devices } = this.#run;
    this.#run.guarded(() => {
      const console = devices?.controls.console;
      if (console === undefined) machine.serial.receiveBreak();
      else console.receiveBreak();
    });
  }

  /**
   * Presses Ctrl-Alt-Del on the guest's keyboard (`keyboard`). False without one, and while the guest has not read what was
   * pressed before.
   */
  pressCtrlAltDel(): boolean {
    if (!this.#life.hasGuest) return false;
    return this.#run.guarded(() => this.#run.machine.i8042.pressCtrlAltDel()) ?? false;
  }

  /** Tells the guest the size of its terminal; only a virtio console can. */
  resize(size: TerminalSize): void {
    const checked = checkSize(size);
    if (!this.#life.hasGuest) return;
    this.#run.guarded(() => this.#run.devices?.controls.console?.resize(checked));
  }

  /** Asks the guest to give up so many `MiB` of its memory in all. Throws ConfigError without a balloon, or for too many. */
  setBalloon(targetMib: number): void {
    this.#updates.setBalloon(targetMib, this.#life.hasGuest);
  }

  /**
   * Asks the guest about its memory each so many seconds, from now on. Throws ConfigError without a balloon, and for what
   * would turn statistics on or off, which a guest cannot do while it runs; VmStateError after the guest's end.
   */
  setBalloonInterval(seconds: number): void {
    if (!this.#life.hasGuest) throw this.#life.refuse("setBalloonInterval");
    this.#updates.setBalloonInterval(seconds);
  }

  /**
   * Asks the guest for all pages that it does not use: the host's memory behind them is free, and the guest uses none of them
   * until `stopBalloonHinting`, or, with `endsItself`, the default, until it has handed in the last one. Throws ConfigError
   * for a balloon without hinting; VmStateError after the guest's end.
   */
  startBalloonHinting({ endsItself = true }: { readonly endsItself?: boolean } = {}): void {
    if (!this.#life.hasGuest) throw this.#life.refuse("startBalloonHinting");
    const hints = this.#updates.hints();
    this.#run.guarded(() => {
      hints.startHinting(endsItself);
    });
  }

  /** The guest may use its pages again. Throws as startBalloonHinting does. */
  stopBalloonHinting(): void {
    if (!this.#life.hasGuest) throw this.#life.refuse("stopBalloonHinting");
    const hints = this.#updates.hints();
    this.#run.guarded(() => {
      hints.stopHinting();
    });
  }

  /** How far that is. Throws ConfigError for a balloon without hinting. */
  balloonHinting(): HintingStatus {
    return this.#updates.hints().hintingStatus();
  }

  /**
   * Changes a disk by its name, such as "vda". A guest whose disk gets another file, or another size, is told of it, and
   * the old file is closed once nothing is in flight there. Throws ConfigError, DiskError or HostError, with nothing
   * changed; VmStateError after the guest's end.
   */
  updateDisk(name: string, update: DiskUpdate): void {
    if (!this.#life.hasGuest) throw this.#life.refuse("updateDisk");
    this.#updates.updateDisk(name, update);
  }

  /** Changes a network device by its name, such as "net0". Throws ConfigError; VmStateError after the guest's end. */
  updateNet(name: string, update: NetUpdate): void {
    if (!this.#life.hasGuest) throw this.#life.refuse("updateNet");
    this.#updates.updateNet(name, update);
  }

  /** Changes the entropy device's limits. Throws ConfigError; VmStateError after the guest's end. */
  updateRng(rateLimiter: RateLimiterConfig): void {
    if (!this.#life.hasGuest) throw this.#life.refuse("updateRng");
    this.#updates.updateRng(rateLimiter);
  }

  /** What the VM has used so far. */
  statistics(): VmStatistics {
    return this.#run.statistics(this.#life.hasGuest);
  }

  /** Ends the guest as it stands, or the wait for its last output after it has ended by itself. */
  stop(): void {
    if (this.#life.hasGuest) this.#run.stop();
  }

  /**
   * Lets go of what the devices hold on the host: files, network interfaces, socket files. Enough for a
   * process that ends then; a VM that has not been started cannot be any more.
   * @internal
   */
  closeDevices(): void {
    if (this.#life.state === "closed") return;
    if (this.#life.state === "running" || this.#life.state === "paused") throw this.#life.refuse("closeDevices");
    if (this.#life.state === "built") this.#life.enter("stopped", "closeDevices");
    this.#closeDevices();
  }

  /** Frees everything, after the end of a guest that still runs. Later calls wait for the first. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#life.state === "built") this.#life.enter("stopped", "close");
    this.stop();
    await this.#ended;
    await this.#held;
    await Promise.all(this.#readers);
    await this.#run.threadsEnded();
    this.#life.enter("closed", "close");
    this.#watches?.close();
    this.#run.command?.detach();
    try {
      this.#closeDevices();
    } finally {
      await this.#parts.close();
    }
  }

  #closeDevices(): void {
    try {
      this.#run.devices?.close();
    } finally {
      this.#parts.closeDevices();
    }
  }
}
