// What a lab runs on: an emulated machine as the session sees it. One file each: qemu.ts has a
// processor with AMD-V, bochs.ts one with VT-x.
import type { Readable, Writable } from "node:stream";
import type { DiskFormat } from "../config/disks.js";
import type { LabCpu } from "./cpu.js";
import type { LabBase, LabInput } from "./image.js";

/** A disk of this host that the lab sees as it is. */
export interface LabDisk {
  readonly path: string;
  /** "parts" is what no emulator knows: parts-description.ts. */
  readonly format?: DiskFormat;
  readonly isReadonly: boolean;
  readonly cache: "writeback" | "unsafe";
  readonly lock: boolean;
}

export interface MachineSize {
  /** RAM of the lab in `MiB`, its own kernel and programs included. */
  readonly memoryMib: number;
  /** Processors of the emulated host; Bochs has one, whatever is asked for. */
  readonly cpus: number;
}

export interface LabOptions extends MachineSize {
  /** Default: "amd". */
  readonly cpu?: LabCpu;
  /** The AMD processor's model, one of QEMU's, in place of all that QEMU can emulate. Such a lab boots, and is not saved. */
  readonly model?: string;
  /** Top folder of the package, for guest/lab/build. */
  readonly packageRoot: string;
  readonly inputs: readonly LabInput[];
  /** In place of `inputs`: a disk that has them already, and which no lab changes. */
  readonly inputDisk?: string;
  /** The package's program is to be there for `isVmlet` commands, if need be in front of the inputs. */
  readonly needsVmlet?: boolean;
  readonly disks?: readonly LabDisk[];
  /**
   * A file as an NVMe disk with virtual functions, behind an IOMMU: what a guest can be given as a device. Such a lab boots, and
   * is not saved.
   */
  readonly nvmeDisk?: string | undefined;
}

/** Disks that come and go; the numbers go on behind those of LabOptions.disks, and none comes twice. */
export interface Hotplug {
  plug(disk: LabDisk, index: number): Promise<void>;
  /** The machine has been told to let go of it. */
  unplug(index: number): Promise<void>;
}

/** An emulator that runs. */
export interface LabMachine {
  /** Bytes from the agent, bytes to it. */
  readonly output: Readable;
  readonly input: Writable;
  /** Resolves when the machine runs; rejects if a saved one does not go on. */
  readonly running: Promise<void>;
  /** Resolves when the emulator has ended. */
  readonly ended: Promise<void>;
  /** Undefined where disks cannot come and go while it runs. */
  readonly hotplug?: Hotplug;
  /** Ends it at once. */
  kill(): void;
  /** What the emulator itself complained of. */
  complaints(): string;
}

/** A machine that was up once, and goes on from there: saved-state.ts. */
export interface SavedState {
  /** Its RAM, a sparse file, and all else of it. */
  readonly ram: string;
  readonly machine: string;
  readonly size: MachineSize;
  /** Stream of the agent's on which a vmlet waits in it; undefined: none does. */
  readonly vmletStream: number | undefined;
}

export interface Emulator {
  readonly name: string;
  /** How long the emulated host may take to come up on a busy machine, `ms`. */
  readonly startLimitMs: number;
  /** One whose agent does not answer for so long hangs, `ms`. */
  readonly silenceMs: number;
  /** Throws ConfigError for what this machine cannot have; nothing is started or made then. */
  check(options: LabOptions): void;
  /** Starts it; all its files are in `folder`, its console is console.log there. */
  start(options: LabOptions, base: LabBase, inputDisk: string, folder: string): LabMachine;
}
