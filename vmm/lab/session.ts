// A running lab: an emulated machine, and the agent in it that runs our commands. DESIGN.md, "The lab".
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LabError } from "../errors.js";
import { BOCHS } from "./bochs.js";
import type { LabCpu } from "./cpu.js";
import type { Emulator, LabMachine, LabOptions } from "./emulator.js";
import { FrameReader, encodeFrame, encodeRequest, encodeWindowSize, type Frame } from "./frames.js";
import { labBase, makeInputDisk } from "./image.js";
import { InputQueue } from "./input-queue.js";
import { timeLimit } from "../host/time-limit.js";
import { QEMU } from "./qemu.js";

const EMULATORS: Readonly<Record<LabCpu, Emulator>> = { amd: QEMU, intel: BOCHS };

/** Path in the lab of the disk `index`: the base and the input disk come first. */
export function labDiskPath(index: number): string {
  return `/dev/vd${String.fromCharCode("c".charCodeAt(0) + index)}`;
}

export interface LabCommand {
  readonly argv: readonly (string | Uint8Array)[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly terminal?: { readonly rows: number; readonly columns: number } | undefined;
  /** All of standard input; without it the caller writes with `input` and `endInput`. */
  readonly stdin?: string | Uint8Array;
  readonly onOutput?: (bytes: Buffer, stream: "stdout" | "stderr") => void;
}

export interface LabResult {
  /** Exit status, or 128 + signal. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Files that the command left in /output. */
  readonly files: ReadonlyMap<string, Buffer>;
}

const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  VMLET_IN_LAB: "1",
};
const CONSOLE_TAIL_LINES = 15;

interface Pending {
  readonly command: LabCommand;
  readonly stdout: Buffer[];
  readonly stderr: Buffer[];
  readonly files: Map<string, Buffer>;
  readonly resolve: (result: LabResult) => void;
  readonly reject: (error: Error) => void;
}

/** How a start can be watched and given up. */
export interface StartOptions {
  /** Ends it without leaving anything. */
  readonly abort?: AbortSignal;
  /** How far the start is, in words; a fast emulator says nothing. */
  readonly onProgress?: (text: string) => void;
  /** The emulated host has said something, if only that it lives, which it does every 5 s of its own time. */
  readonly onLife?: () => void;
}

export class LabSession {
  readonly #emulator: Emulator;
  readonly #machine: LabMachine;
  readonly #folder: string;
  readonly #ended: Promise<void>;
  readonly #input: InputQueue;
  #pending: Pending | undefined;
  #ready: (() => void) | undefined;
  #onProgress: ((text: string) => void) | undefined;
  #onLife: (() => void) | undefined;
  #isClosed = false;
  #hasEnded = false;
  #silence: NodeJS.Timeout | undefined;
  #lastWords = "";

  private constructor(emulator: Emulator, machine: LabMachine, folder: string) {
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
      clearTimeout(this.#silence);
      this.#hasEnded = true;
      this.#lastWords = this.#consoleTail() + this.#lastWords;
      this.#pending?.reject(new LabError(`The lab has stopped unexpectedly\n${this.#lastWords}`));
      this.#pending = undefined;
      this.#removeFiles();
    });
  }

  /** Resolves once the emulated host is up and takes commands. */
  static async start(options: LabOptions, { abort, onProgress, onLife }: StartOptions = {}): Promise<LabSession> {
    const { cpu = "amd" } = options;
    const emulator = EMULATORS[cpu];
    emulator.check(options);
    const base = await labBase(options.packageRoot, cpu);
    abort?.throwIfAborted();
    const folder = mkdtempSync(join(tmpdir(), "vmlet-lab-"));
    let session: LabSession;
    try {
      const disk = makeInputDisk(folder, options.inputs);
      session = new LabSession(emulator, emulator.start(options, base, disk, folder), folder);
      session.#onProgress = onProgress;
      session.#onLife = onLife;
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
    try {
      await session.#waitUntilReady(abort);
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /** Runs one command; a second one may only start after the first has ended. */
  run(command: LabCommand): Promise<LabResult> {
    if (this.#hasEnded) return Promise.reject(new LabError(`The lab has stopped unexpectedly\n${this.#lastWords}`));
    if (this.#pending !== undefined) return Promise.reject(new LabError("The lab runs one command at a time"));
    return new Promise((resolve, reject) => {
      this.#pending = { command, stdout: [], stderr: [], files: new Map(), resolve, reject };
      const { argv, env = {}, cwd = "/", terminal } = command;
      this.#send("X", encodeRequest({ argv, env: { ...ENVIRONMENT, ...env }, cwd, terminal }));
      if (command.stdin !== undefined) {
        this.input(Buffer.from(command.stdin));
        this.endInput();
      }
    });
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

  async #waitUntilReady(abort: AbortSignal | undefined): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const ready = new Promise<void>((resolve) => (this.#ready = resolve));
    const failed = this.#ended.then(() => {
      throw new LabError(`${this.#emulator.name} has stopped while the lab was starting\n${this.#lastWords}`);
    });
    const limitMs = timeLimit("the lab's start", this.#emulator.startLimitMs);
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new LabError(`The lab is not up after ${String(limitMs / 1000)} s\n${this.#consoleTail()}`));
      }, limitMs);
    });
    // After the start, the caller of the running command gets the error.
    failed.catch(() => undefined);
    const aborted = new Promise<never>((_, reject) => {
      abort?.addEventListener("abort", () => {
        reject(abort.reason as Error);
      });
    });
    try {
      await Promise.race([ready, failed, late, aborted]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Two emulated processors can deadlock: that must not look like a slow command. */
  #expectLife(): void {
    clearTimeout(this.#silence);
    const limitMs = timeLimit("a sign of life from the lab", this.#emulator.silenceMs);
    this.#silence = setTimeout(() => {
      this.#lastWords = `\nThe emulated host has been silent for ${String(limitMs / 1000)} s and was stopped: try again`;
      this.#machine.kill();
    }, limitMs).unref();
  }

  #take({ type, payload }: Frame): void {
    this.#expectLife();
    this.#onLife?.();
    const pending = this.#pending;
    switch (type) {
      case "R":
        this.#ready?.();
        break;
      case "P":
        this.#onProgress?.(payload.toString("utf8"));
        break;
      case "A":
        this.#input.acknowledge();
        break;
      case "O":
      case "2": {
        const stream = type === "O" ? "stdout" : "stderr";
        if (pending?.command.onOutput !== undefined) pending.command.onOutput(payload, stream);
        else pending?.[stream].push(Buffer.from(payload));
        break;
      }
      case "F": {
        const end = payload.indexOf(0);
        pending?.files.set(payload.toString("utf8", 0, end), Buffer.from(payload.subarray(end + 1)));
        break;
      }
      case "Z": {
        const signal = payload.readUInt32LE(4);
        this.#pending = undefined;
        this.#input.clear();
        pending?.resolve({
          status: signal === 0 ? payload.readUInt32LE(0) : 128 + signal,
          stdout: Buffer.concat(pending.stdout),
          stderr: Buffer.concat(pending.stderr),
          files: pending.files,
        });
        break;
      }
      default:
        break;
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
