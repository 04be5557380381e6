// What a lab runs on: an emulated machine as the session sees it. One file each: qemu.ts has a
// processor with AMD-V, bochs.ts one with VT-x.
import type { Readable, Writable } from "node:stream";
import type { LabCpu } from "./cpu.js";
import type { LabBase, LabInput } from "./image.js";

/** A disk of this host that the lab sees as it is. */
export interface LabDisk {
  readonly path: string;
  readonly isReadonly: boolean;
  readonly cache: "writeback" | "unsafe";
  readonly lock: boolean;
}

export interface LabOptions {
  /** Default: "amd". */
  readonly cpu?: LabCpu;
  /** Top folder of the package, for guest/lab/build. */
  readonly packageRoot: string;
  /** RAM of the lab in `MiB`, its own kernel and programs included. */
  readonly memoryMib: number;
  /** Processors of the emulated host; Bochs has one, whatever is asked for. */
  readonly cpus: number;
  readonly inputs: readonly LabInput[];
  readonly disks?: readonly LabDisk[];
}

/** An emulator that runs. */
export interface LabMachine {
  /** Frames from the agent, frames to it. */
  readonly output: Readable;
  readonly input: Writable;
  /** Resolves when the emulator has ended. */
  readonly ended: Promise<void>;
  /** Ends it at once. */
  kill(): void;
  /** What the emulator itself complained of. */
  complaints(): string;
}

export interface Emulator {
  readonly name: string;
  /** How long the emulated host may take to come up on a busy machine, `ms`. */
  readonly startLimitMs: number;
  /** The agent says something every 5 s of its own time. One that is silent for so long hangs, `ms`. */
  readonly silenceMs: number;
  /** Throws ConfigError for what this machine cannot have; nothing is started or made then. */
  check(options: LabOptions): void;
  /** Starts it; all its files are in `folder`, its console is console.log there. */
  start(options: LabOptions, base: LabBase, inputDisk: string, folder: string): LabMachine;
}
