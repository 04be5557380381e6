// A running lab: an emulated machine, and the agent in it that runs our commands. DESIGN.md, "The lab".
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError, DiskError, LabError } from "../errors.js";
import { BOCHS } from "./bochs.js";
import { RunningCommand, type LabCommand, type LabResult } from "./command.js";
import type { LabCpu } from "./cpu.js";
import { LAB_CLI, WAITING_CLI, packageInputs } from "./checkout.js";
import type { Emulator, LabMachine, LabOptions, SavedState } from "./emulator.js";
import { ENVIRONMENT, NODE } from "./environment.js";
import { FrameReader, encodeBegin, encodeFrame, encodeRequest, encodeWindowSize, type Frame } from "./frames.js";
import { INPUT_DISK_BYTES, labBase, makeInputDisk, type LabBase } from "./image.js";
import { InputQueue } from "./input-queue.js";
import { savedState, type StateOrReason } from "./make-state.js";
import { afterLimit } from "../host/time-limit.js";
import { QEMU, restore } from "./qemu.js";
import { discardState } from "./saved-state.js";

const EMULATORS: Readonly<Record<LabCpu, Emulator>> = { amd: QEMU, intel: BOCHS };

/** Path in the lab of the disk `index`: the base and the input disk come first. */
export function labDiskPath(index: number): string {
  return `/dev/vd${String.fromCharCode("c".charCodeAt(0) + index)}`;
}

/** From QEMU's start until a restored host takes commands, on a busy machine, `ms`. */
const RESTORE_LIMIT_MS = 20_000;
const CONSOLE_TAIL_LINES = 15;

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
  /** The emulated host has said something, if only that it lives, which it does every 5 s of its own time. */
  readonly onLife?: () => void;
}

export class LabSession {
  readonly #emulator: Emulator;
  readonly #machine: LabMachine;
  readonly #folder: string;
  readonly #ended: Promise<void>;
  readonly #input: InputQueue;
  #running: RunningCommand | undefined;
  #ready: (() => void) | undefined;
  #onProgress: ((text: string) => void) | undefined;
  #onLife: (() => void) | undefined;
  #isClosed = false;
  #hasEnded = false;
  #endSilence = (): void => undefined;
  #lastWords = "";
  readonly #disks: number;
  /** Where the package's program lies in there. */
  readonly #cli: string;
  /** It went on from a saved state, and did not boot. */
  readonly isRestored: boolean;

  private constructor(emulator: Emulator, machine: LabMachine, folder: string, disks: number, isRestored: boolean) {
    this.#disks = disks;
    this.isRestored = isRestored;
    this.#cli = isRestored ? WAITING_CLI : LAB_CLI;
    this.#emulator = emulator;
    this.#machine = machine;
    this.#folder = folder;
    this.#input = new InputQueue((type, payload) => {
      this.#send(type, payload);
    });
    const reader = new FrameReader();
    machine.output.on("data", (chunk: Buffer) => {
      for (const frame of reader.push(chunk)) this.#take(frame);
    });
    // A broken connection shows as the end of the emulator, which is reported there.
    machine.output.on("error", () => undefined);
    this.#ended = machine.ended.then(() => {
      this.#endSilence();
      this.#hasEnded = true;
      this.#lastWords = this.#consoleTail() + this.#lastWords;
      this.#running?.fail(new LabError(`The lab has stopped unexpectedly\n${this.#lastWords}`));
      this.#running = undefined;
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
    if (cpu !== "amd" || options.model !== undefined || !useSavedState)
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
    { abort, onProgress, onLife }: StartOptions,
  ): Promise<LabSession> {
    const { cpu = "amd", disks = [] } = options;
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
      session = new LabSession(emulator, machine, folder, disks.length, state !== undefined);
      session.#onProgress = onProgress;
      session.#onLife = onLife;
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
    try {
      const running = Promise.all([machine.running, filled]).then(() => {
        // A machine that boots asks for it.
        if (state !== undefined) session.#sendBegin();
      });
      await session.#waitUntilReady(running, state === undefined ? emulator.startLimitMs : RESTORE_LIMIT_MS, abort);
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /** Runs one command; a second one may only start after the first has ended. */
  async run(command: LabCommand): Promise<LabResult> {
    if (this.#hasEnded) throw new LabError(`The lab has stopped unexpectedly\n${this.#lastWords}`);
    if (this.#running !== undefined) throw new LabError("The lab runs one command at a time");
    const { isVmlet = false, env = {}, cwd = "/", terminal, stdin } = command;
    const argv = isVmlet ? [...NODE, this.#cli, ...command.argv] : command.argv;
    const request = encodeRequest({ argv, env: { ...ENVIRONMENT, ...env }, cwd, terminal, isVmlet });
    this.#running = new RunningCommand(command);
    const { result } = this.#running;
    this.#send("X", request);
    if (stdin !== undefined) {
      this.input(Buffer.from(stdin));
      this.endInput();
    }
    return result;
  }

  /** False if the caller should wait for `onceDrained` before it gives more. */
  input(bytes: Uint8Array): boolean {
    return this.#input.push(bytes);
  }

  onceDrained(callback: () => void): void {
    this.#input.onceDrained(callback);
  }

  endInput(): void {
    this.#input.end();
  }

  signal(number: number): void {
    this.#send("S", Uint8Array.of(number));
  }

  resize(rows: number, columns: number): void {
    this.#send("W", encodeWindowSize(rows, columns));
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

  #send(type: string, payload?: Uint8Array): void {
    if (this.#machine.input.writable) this.#machine.input.write(encodeFrame(type, payload));
  }

  #sendBegin(): void {
    this.#send("T", encodeBegin(this.#disks));
  }

  /** Until the agent has said so, if `running` does not fail before. */
  async #waitUntilReady(running: Promise<void>, usualMs: number, abort: AbortSignal | undefined): Promise<void> {
    let inTime = (): void => undefined;
    const ready = new Promise<void>((resolve) => (this.#ready = resolve));
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
    const halted = running.then(() => ready);
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

  /** Two emulated processors can deadlock: that must not look like a slow command. */
  #expectLife(): void {
    this.#endSilence();
    this.#endSilence = afterLimit("a sign of life from the lab", this.#emulator.silenceMs, (limitMs) => {
      this.#lastWords = `\nThe emulated host has been silent for ${String(limitMs / 1000)} s and was stopped: try again`;
      this.#machine.kill();
    });
  }

  #take(frame: Frame): void {
    this.#expectLife();
    this.#onLife?.();
    switch (frame.type) {
      case "N":
        this.#sendBegin();
        break;
      case "R":
        this.#ready?.();
        break;
      case "P":
        this.#onProgress?.(frame.payload.toString("utf8"));
        break;
      case "A":
        this.#input.acknowledge();
        break;
      default: {
        const running = this.#running;
        if (frame.type === "Z") {
          this.#running = undefined;
          this.#input.clear();
        }
        running?.take(frame);
        break;
      }
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
