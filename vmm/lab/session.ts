// A running lab: QEMU with an emulated AMD CPU, and the agent in it that runs our commands.
// DESIGN.md, "The lab".
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { LabError } from "../errors.js";
import { FrameReader, MAX_PAYLOAD, encodeFrame, encodeRequest, encodeWindowSize, type Frame } from "./frames.js";
import { labBase, makeInputDisk, type LabInput } from "./image.js";
import { timeLimit } from "../time-limit.js";
import { findProgram } from "./programs.js";

/** A disk of this host that the lab sees as it is. */
export interface LabDisk {
  readonly path: string;
  readonly isReadonly: boolean;
  readonly cache: "writeback" | "unsafe";
}

export interface LabOptions {
  /** Top folder of the package, for guest/lab/build. */
  readonly packageRoot: string;
  /** RAM of the lab in `MiB`, its own kernel and programs included. */
  readonly memoryMib: number;
  readonly cpus: number;
  readonly inputs: readonly LabInput[];
  readonly disks?: readonly LabDisk[];
}

/** Path in the lab of the disk `index`: the base and the input disk come first. */
export function labDiskPath(index: number): string {
  return `/dev/vd${String.fromCharCode("c".charCodeAt(0) + index)}`;
}

export interface LabCommand {
  readonly argv: readonly string[];
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
/** An emulated machine may be slow to start when the host is busy, `ms`. */
const START_TIMEOUT_MS = 120_000;
// KVM under TCG does not see the second level's XSETBV, so CPUID leaf 0xD would lie to it: no XSAVE at all.
const LAB_CPU = "max,xsave=off";
// A processor of the lab that hangs in its kernel (seen now and then under TCG) ends the lab with a
// message; without softlockup_panic, whoever waits for the lab would wait for ever.
const LAB_CMDLINE =
  "console=ttyS0 quiet loglevel=4 panic=-1 softlockup_panic=1 mitigations=off random.trust_cpu=on rdinit=/init";
const CONSOLE_TAIL_LINES = 15;
/** The agent says something every 5 s. An emulated host that is silent for so long hangs, `ms`. */
const SILENCE_MS = 60_000;
const MAX_COMPLAINT_CHARS = 4000;

interface Pending {
  readonly command: LabCommand;
  readonly stdout: Buffer[];
  readonly stderr: Buffer[];
  readonly files: Map<string, Buffer>;
  readonly resolve: (result: LabResult) => void;
  readonly reject: (error: Error) => void;
}

export class LabSession {
  readonly #qemu: ChildProcess;
  readonly #port: Duplex;
  readonly #folder: string;
  readonly #ended: Promise<void>;
  #pending: Pending | undefined;
  #ready: (() => void) | undefined;
  #isClosed = false;
  #complaints = "";
  #silence: NodeJS.Timeout | undefined;
  #lastWords = "";

  private constructor(qemu: ChildProcess, folder: string) {
    this.#qemu = qemu;
    this.#folder = folder;
    this.#port = qemu.stdio[3] as Duplex;
    const reader = new FrameReader();
    this.#port.on("data", (chunk: Buffer) => {
      for (const frame of reader.push(chunk)) this.#take(frame);
    });
    // A broken connection shows as QEMU's end, which is where it is reported.
    this.#port.on("error", () => undefined);
    qemu.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#complaints = (this.#complaints + text).slice(-MAX_COMPLAINT_CHARS);
    });
    this.#ended = new Promise((resolve) => {
      qemu.once("close", () => {
        clearTimeout(this.#silence);
        this.#lastWords = this.#consoleTail();
        resolve();
        this.#pending?.reject(new LabError(`The lab has stopped unexpectedly\n${this.#lastWords}`));
        this.#pending = undefined;
        this.#removeFiles();
      });
      qemu.once("error", () => {
        resolve();
      });
    });
  }

  /** Resolves once the emulated host is up and takes commands; `abort` ends it without leaving anything. */
  static async start(options: LabOptions, abort?: AbortSignal): Promise<LabSession> {
    const base = await labBase(options.packageRoot);
    abort?.throwIfAborted();
    const folder = mkdtempSync(join(tmpdir(), "vmlet-lab-"));
    let session: LabSession;
    try {
      const disk = makeInputDisk(folder, options.inputs);
      const qemu = spawn(
        findProgram("qemu-system-x86_64") ?? "qemu-system-x86_64",
        qemuArguments(options, base, disk, folder),
        {
          // Its own group: a Ctrl-C at the terminal is for us to handle.
          detached: true,
          stdio: ["ignore", "ignore", "pipe", "pipe"],
        },
      );
      session = new LabSession(qemu, folder);
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
    let roomy = true;
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD)
      roomy = this.#send("I", bytes.subarray(at, at + MAX_PAYLOAD));
    return roomy;
  }

  onceDrained(callback: () => void): void {
    this.#port.once("drain", callback);
  }

  endInput(): void {
    this.#send("E");
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
      this.#port.destroy();
      this.#qemu.kill("SIGKILL");
    }
    await this.#ended;
    this.#removeFiles();
  }

  #send(type: string, payload?: Uint8Array): boolean {
    return this.#port.writable && this.#port.write(encodeFrame(type, payload));
  }

  async #waitUntilReady(abort: AbortSignal | undefined): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const ready = new Promise<void>((resolve) => (this.#ready = resolve));
    const failed = this.#ended.then(() => {
      throw new LabError(`QEMU has stopped while the lab was starting\n${this.#lastWords}`);
    });
    const limitMs = timeLimit("the lab's start", START_TIMEOUT_MS);
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new LabError(`The lab is not up after ${String(limitMs / 1000)} s\n${this.#consoleTail()}`));
      }, limitMs);
    });
    // After the start, the end is reported to whoever runs a command.
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

  /** Two emulated processors can lock each other up for good: that must not look like a slow command. */
  #expectLife(): void {
    clearTimeout(this.#silence);
    const limitMs = timeLimit("a sign of life from the lab", SILENCE_MS);
    this.#silence = setTimeout(() => {
      this.#complaints += `\nThe emulated host has been silent for ${String(limitMs / 1000)} s and was stopped: try again\n`;
      this.#qemu.kill("SIGKILL");
    }, limitMs).unref();
  }

  #take({ type, payload }: Frame): void {
    this.#expectLife();
    const pending = this.#pending;
    switch (type) {
      case "R":
        this.#ready?.();
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

  /** What QEMU complained of and the last lines of the emulated console. */
  #consoleTail(): string {
    let log = "";
    try {
      log = readFileSync(join(this.#folder, "console.log"), "utf8");
    } catch {
      // QEMU stopped before it made the file: its complaint is what there is.
    }
    const lines = `${log}${this.#complaints}`.trimEnd().split(/\r?\n/);
    return lines.slice(-CONSOLE_TAIL_LINES).join("\n");
  }

  #removeFiles(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function qemuArguments(
  { memoryMib, cpus, disks = [] }: LabOptions,
  base: { kernel: string; initrd: string; disk: string },
  inputDisk: string,
  folder: string,
): string[] {
  const drive = (file: string, options: string): string[] => [
    "-drive",
    `file=${file.replaceAll(",", ",,")},format=raw,if=virtio,${options}`,
  ];
  const disk = (file: string): string[] => drive(file, "readonly=on");
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", LAB_CPU],
    ...["-smp", String(cpus), "-m", String(memoryMib)],
    ...["-kernel", base.kernel, "-initrd", base.initrd],
    ...["-append", LAB_CMDLINE],
    ...disk(base.disk),
    ...disk(inputDisk),
    ...disks.flatMap(({ path, isReadonly, cache }) =>
      isReadonly ? disk(path) : drive(path, `cache=${cache},discard=unmap,detect-zeroes=off`),
    ),
    ...["-chardev", `file,id=console,path=${join(folder, "console.log").replaceAll(",", ",,")}`],
    ...["-serial", "chardev:console"],
    ...["-device", "virtio-serial-pci", "-chardev", "socket,id=agent,fd=3"],
    ...["-device", "virtserialport,chardev=agent,name=vmlet.agent"],
  ];
}
