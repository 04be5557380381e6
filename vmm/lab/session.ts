// A running lab: an emulated machine, and the agent in it that runs our commands. DESIGN.md, "The lab".
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentConnection } from "../agent/connection.js";
import { GuestFiles } from "../agent/files.js";
import { GuestControl } from "../agent/guest.js";
import { AgentError, ConfigError, DiskError, GuestRequestError, LabError } from "../errors.js";
import { BOCHS } from "./bochs.js";
import { RunningCommand, WaitingVmlet, type LabCommand, type LabResult } from "./command.js";
import type { LabCpu } from "./cpu.js";
import { LAB_CLI, WAITING_CLI, packageInputs } from "./checkout.js";
import type { Emulator, LabMachine, LabOptions, SavedState } from "./emulator.js";
import { LabDisks } from "./disks.js";
import { ENVIRONMENT, NODE } from "./environment.js";
import { INPUT_DISK_BYTES, labBase, makeInputDisk, type LabBase } from "./image.js";
import { MachineTransport } from "./machine-transport.js";
import { savedState, type StateOrReason } from "./make-state.js";
import { afterLimit } from "../host/time-limit.js";
import { QEMU, restore } from "./qemu.js";
import { discardState } from "./saved-state.js";

const EMULATORS: Readonly<Record<LabCpu, Emulator>> = { amd: QEMU, intel: BOCHS };

/** From QEMU's start until a restored host takes commands, on a busy machine, `ms`. */
const RESTORE_LIMIT_MS = 20_000;
const CONSOLE_TAIL_LINES = 15;
/** Without a word of the lab while something is under way, until it is asked whether it lives, `ms`. */
const SILENCE_MS = 10_000;
const INPUT_DISK = "/dev/vdb";
const INPUT_FOLDER = "/input";
const OUTPUT_FOLDER = "/output";
/** mount(2) */
const MS_RDONLY = 1;
const SEED_BYTES = 32;
/** Of a file in /output, `bytes`. */
const MAX_FILE = 2 ** 30;

/** How a start can be watched and given up. */
export interface StartOptions {
  /** Ends it without leaving anything. */
  readonly abort?: AbortSignal;
  /** How far the start is, in words; a fast emulator says nothing. */
  readonly onProgress?: (text: string) => void;
  /** What happens otherwise than usual, a line each. */
  readonly onNotice?: (line: string) => void;
  /** False: it boots, whatever is saved. Default: true. */
  readonly useSavedState?: boolean;
  /** The emulated host has said something, if only that it lives: it is asked every 10 s while a command runs. */
  readonly onLife?: () => void;
}

export class LabSession {
  readonly #emulator: Emulator;
  readonly #machine: LabMachine;
  readonly #folder: string;
  readonly #ended: Promise<void>;
  readonly #agent: AgentConnection;
  readonly #transport: MachineTransport;
  readonly #files: GuestFiles;
  readonly #guest: GuestControl;
  /** Those of this host that it has. */
  readonly disks: LabDisks;
  readonly #running = new Set<RunningCommand>();
  /** Whose input and signals the caller's are: the one that was begun last. */
  #current: RunningCommand | undefined;
  #waiting: WaitingVmlet | undefined;
  #isClosed = false;
  #hasEnded = false;
  #lastWords = "";
  /** Settles once what has ended so far has its files. */
  #taken: Promise<unknown> = Promise.resolve();
  /** Where the package's program lies in there. */
  readonly #cli: string;
  /** It went on from a saved state, and did not boot. */
  readonly isRestored: boolean;

  private constructor(
    emulator: Emulator,
    machine: LabMachine,
    folder: string,
    state: SavedState | undefined,
    { onProgress, onLife }: StartOptions,
  ) {
    this.isRestored = state !== undefined;
    this.#cli = state === undefined ? LAB_CLI : WAITING_CLI;
    this.#emulator = emulator;
    this.#machine = machine;
    this.#folder = folder;
    this.#transport = new MachineTransport(machine, { onProgress, onLife });
    this.#agent = new AgentConnection(this.#transport, {
      // In a saved state it has said HELLO to who made it.
      isGreeted: this.isRestored,
      // The start has a limit of its own, with a message that says more.
      helloLimitMs: 2 * emulator.startLimitMs,
      silenceMs: SILENCE_MS,
      answerLimitMs: emulator.silenceMs,
    });
    this.#files = new GuestFiles(this.#agent);
    this.#guest = new GuestControl(this.#agent, this.#files);
    this.disks = new LabDisks(this.#files, machine.hotplug);
    if (state?.vmletStream !== undefined) this.#waiting = new WaitingVmlet(this.#agent, state.vmletStream);
    void this.#agent.closed.then((error) => {
      if (this.#isClosed || this.#hasEnded) return;
      // Two emulated processors can deadlock: that must not look like a slow command.
      if (error.reason === "silent") {
        this.#lastWords = `\nThe emulated host is silent and was stopped: ${error.message}: try again`;
      } else if (error.reason !== "gone") this.#lastWords = `\n${error.message}`;
      machine.kill();
    });
    this.#ended = machine.ended.then(() => {
      this.#hasEnded = true;
      this.#lastWords = this.#consoleTail() + this.#lastWords;
      this.#agent.close();
      this.#removeFiles();
    });
  }

  /** Resolves once the emulated host is up and takes commands. */
  static async start(options: LabOptions, start: StartOptions = {}): Promise<LabSession> {
    const { abort, onNotice, useSavedState = true } = start;
    const { cpu = "amd" } = options;
    EMULATORS[cpu].check(options);
    const base = await labBase(options.packageRoot, cpu);
    abort?.throwIfAborted();
    if (cpu !== "amd" || options.model !== undefined || options.nvmeDisk !== undefined || !useSavedState)
      return LabSession.#begin(options, base, undefined, start);
    const state: StateOrReason = await savedState(options, base, start);
    if ("why" in state) {
      onNotice?.(`the lab boots, because it has no saved state: ${state.why}`);
      return LabSession.#begin(options, base, undefined, start);
    }
    try {
      return await LabSession.#begin(options, base, state, start);
    } catch (error) {
      abort?.throwIfAborted();
      // The user's, not the state's.
      if (error instanceof ConfigError || error instanceof DiskError) throw error;
      discardState(state);
      const [why = ""] = (error as Error).message.split("\n");
      onNotice?.(`the lab boots, because it could not go on from its saved state, which is removed: ${why}`);
      return LabSession.#begin(options, base, undefined, start);
    }
  }

  static async #begin(
    options: LabOptions,
    base: LabBase,
    state: SavedState | undefined,
    start: StartOptions,
  ): Promise<LabSession> {
    const { cpu = "amd", disks = [] } = options;
    const { abort } = start;
    const emulator = EMULATORS[cpu];
    const folder = mkdtempSync(join(tmpdir(), "vmlet-lab-"));
    let session: LabSession;
    let machine: LabMachine;
    let filled: Promise<void> | undefined;
    try {
      const needsPackage = options.needsVmlet === true && state === undefined;
      const inputs = [...(needsPackage ? packageInputs(options.packageRoot) : []), ...options.inputs];
      // A saved machine starts while its disk is still being filled: it must not look at it before.
      const disk =
        options.inputDisk === undefined
          ? makeInputDisk(folder, inputs, state === undefined ? 0 : INPUT_DISK_BYTES)
          : { path: options.inputDisk, filled: Promise.resolve() };
      filled = disk.filled;
      if (state === undefined) await filled;
      else filled.catch(() => undefined);
      abort?.throwIfAborted();
      machine =
        state === undefined
          ? emulator.start(options, base, disk.path, folder)
          : restore(state, options, base, disk.path, folder);
      session = new LabSession(emulator, machine, folder, state, start);
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
    try {
      const ready = Promise.all([machine.running, filled]).then(() => session.#becomeHost(disks.length));
      await session.#waitUntilReady(ready, state === undefined ? emulator.startLimitMs : RESTORE_LIMIT_MS, abort);
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /** Runs one command; others may run beside it. */
  async run(command: LabCommand): Promise<LabResult> {
    if (this.#hasEnded) throw this.#stopped();
    const { isVmlet = false, env = {} } = command;
    const waiting = isVmlet && this.#waiting?.hasEnded === false ? this.#waiting : undefined;
    if (waiting !== undefined) this.#waiting = undefined;
    const program = isVmlet ? [...NODE, this.#cli, ...command.argv] : command.argv;
    const running = new RunningCommand(
      command,
      { agent: this.#agent, env: { ...ENVIRONMENT, ...env }, waiting },
      program,
    );
    this.#current = running;
    this.#running.add(running);
    try {
      const status = await running.exit;
      // Of two that end at once, each file is one's.
      const taken = this.#taken.then(() => this.#takeFiles());
      this.#taken = taken.catch(() => undefined);
      const files = await taken;
      return { status, ...running.output, files };
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      await this.#ended;
      throw this.#stopped();
    } finally {
      this.#running.delete(running);
      if (this.#current === running) this.#current = undefined;
    }
  }

  /** False if the caller should wait for `onceDrained` before it gives more. */
  input(bytes: Uint8Array): boolean {
    return this.#current?.input.push(bytes) ?? true;
  }

  onceDrained(callback: () => void): void {
    this.#current?.input.onceDrained(callback);
  }

  endInput(): void {
    this.#current?.input.end();
  }

  signal(number: number): void {
    this.#current?.signal(number);
  }

  resize(rows: number, columns: number): void {
    this.#current?.resize(rows, columns);
  }

  /** Ends the lab at once; what runs in it is lost. */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#machine.kill();
    }
    await this.#ended;
    this.#removeFiles();
  }

  #stopped(): LabError {
    return new LabError(`The lab has stopped unexpectedly\n${this.#lastWords}`);
  }

  /** The machine may have been restored from a state that many labs share: it gets the time, randomness of its own and this run's disks. */
  async #becomeHost(disks: number): Promise<void> {
    await this.#agent.ready;
    this.#transport.begun();
    // In this order: nothing runs in there before it is another host.
    const identity = this.#guest.setIdentity({
      seed: randomBytes(SEED_BYTES),
      timeNs: BigInt(Date.now()) * 1_000_000n,
    });
    const mounted = this.#guest.mount(INPUT_DISK, INPUT_FOLDER, "ext4", { flags: MS_RDONLY });
    mounted.catch(() => undefined);
    await identity;
    try {
      await mounted;
    } catch (error) {
      if (!(error instanceof GuestRequestError)) throw error;
      throw new LabError(`The lab cannot use its input disk: ${error.message}`, { cause: error });
    }
    await this.disks.ready(disks);
  }

  /** What commands have left in /output, which is empty then. */
  async #takeFiles(): Promise<Map<string, Buffer>> {
    const files = new Map<string, Buffer>();
    for (const { name, type } of await this.#files.list(OUTPUT_FOLDER)) {
      if (type !== "file") continue;
      const path = `${OUTPUT_FOLDER}/${name}`;
      try {
        files.set(name, await this.#files.read(path, { maxBytes: MAX_FILE }));
        await this.#files.remove(path);
      } catch (error) {
        // What still runs in there has taken it away.
        if (!(error instanceof GuestRequestError)) throw error;
      }
    }
    return files;
  }

  /** Until the agent has said so, if `ready` does not fail before. */
  async #waitUntilReady(ready: Promise<void>, usualMs: number, abort: AbortSignal | undefined): Promise<void> {
    let inTime = (): void => undefined;
    const failed = this.#ended.then(() => {
      throw new LabError(`${this.#emulator.name} has stopped while the lab was starting\n${this.#lastWords}`);
    });
    const late = new Promise<never>((_, reject) => {
      inTime = afterLimit("the lab's start", usualMs, (limitMs) => {
        reject(new LabError(`The lab is not up after ${String(limitMs / 1000)} s\n${this.#consoleTail()}`));
      });
    });
    // After the start, the caller of the running command gets the error.
    failed.catch(() => undefined);
    const halted = ready.catch((error: unknown) => {
      // The agent has gone with its machine, whose end says more.
      if (error instanceof AgentError) return failed;
      throw error;
    });
    halted.catch(() => undefined);
    const aborted = new Promise<never>((_, reject) => {
      abort?.addEventListener("abort", () => {
        reject(abort.reason as Error);
      });
    });
    try {
      await Promise.race([halted, failed, late, aborted]);
    } finally {
      inTime();
    }
  }

  /** What the emulator complained of and the last lines of the emulated console. */
  #consoleTail(): string {
    let log = "";
    try {
      log = readFileSync(join(this.#folder, "console.log"), "utf8");
    } catch {
      // The emulator stopped before it made the file: only its complaint is there.
    }
    const lines = `${log}${this.#machine.complaints()}`.trimEnd().split(/\r?\n/);
    return lines.slice(-CONSOLE_TAIL_LINES).join("\n");
  }

  #removeFiles(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
