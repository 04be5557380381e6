// The JSON of --report: what ran, how long each phase took, what it cost, how it ended.
import type { ResolvedConfig } from "../config/types.js";
import { workBeganNs } from "../host/clock.js";
import { acceleratorKind, hostFacts, isInLab, type AcceleratorKind, type HostFacts } from "../host/facts.js";
import type { Milestones, VmExit } from "../machine/vm-exit.js";
import type { KernelFormat } from "../x86/kernel.js";
import { EXIT_CANNOT_WRITE } from "../host/exit-codes.js";
import { say } from "../host/say.js";
import type { HashedKernel } from "./kernel-hash.js";
import { OutputFile } from "./output-file.js";
import { VERSION } from "../host/version.js";

/** `ms`, null where the guest never got there. */
export interface PhasesMs {
  readonly process_to_first_run: number | null;
  readonly first_run_to_init: number | null;
  readonly init_to_exit: number | null;
  /** The three parts of it, with a command. */
  readonly init_to_command: number | null;
  readonly command: number | null;
  readonly command_to_exit: number | null;
  readonly total: number;
}

/** Counters by device and name. */
export type DeviceCounters = Readonly<Record<string, Readonly<Record<string, number>>>>;

export interface Report {
  readonly vmlet: string;
  readonly accelerator: { readonly kind: AcceleratorKind; readonly lab: boolean; readonly host: HostFacts };
  readonly phases_ms: PhasesMs;
  /** Returns of KVM_RUN; "total" is the sum of the other keys. */
  readonly exits: Readonly<Record<string, number>>;
  /** Guest instructions done by hand, by name; empty on hardware. */
  readonly fixups: Readonly<Record<string, number>>;
  /** What each virtio device has done, by name; counters that only grow. */
  readonly devices: DeviceCounters;
  readonly vcpus: number;
  readonly memory_mib: number;
  readonly kernel: { readonly path: string; readonly format: KernelFormat; readonly sha256: string };
  /** Id of the one that the guest went on from; null for a guest that was booted. */
  readonly snapshot: string | null;
  readonly outcome: VmExit["outcome"];
  readonly exit_code: number;
}

/** `reportMs`: what the report itself has taken before the first KVM_RUN; it is left out. */
export function phases({ firstRun, init, commandStart, commandEnd, end }: Milestones, reportMs = 0): PhasesMs {
  // performance.now() counts from the start of the process, hrtime from an arbitrary point. The first touch of
  // `performance` loads it, which must not come between the two readings.
  performance.now();
  const nowMs = performance.now();
  const now = process.hrtime.bigint();
  const began = workBeganNs();
  const sinceStart = (time: bigint): number =>
    (began === undefined ? nowMs - Number(now - time) / 1e6 : Number(time - began) / 1e6) - reportMs;
  const between = (from: bigint | undefined, to: bigint | undefined): number | null =>
    from === undefined || to === undefined ? null : round(Number(to - from) / 1e6);
  // A guest that goes on from a snapshot had its init before it ran here.
  const isRestored = firstRun !== undefined && init !== undefined && init < firstRun;
  const begin = isRestored ? firstRun : init;
  return {
    process_to_first_run: firstRun === undefined ? null : round(sinceStart(firstRun)),
    first_run_to_init: isRestored ? null : between(firstRun, init),
    init_to_exit: between(begin, end),
    init_to_command: between(begin, commandStart),
    command: between(commandStart, commandEnd),
    command_to_exit: between(commandEnd, end),
    total: round(sinceStart(end)),
  };
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

/** The names as all of our JSON has them: readBytes is read_bytes there. */
export function deviceCounters(devices: VmExit["devices"]): DeviceCounters {
  const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(
    Object.entries(devices).map(([device, counters]) => [
      device,
      Object.fromEntries(Object.entries(counters).map(([name, count]) => [snake(name), count])),
    ]),
  );
}

export function makeReport(
  config: ResolvedConfig,
  { format, hash }: { readonly format: KernelFormat; readonly hash: HashedKernel | undefined },
  exit: VmExit,
  exitCode: number,
  snapshot?: string,
): Report {
  const total = Object.values(exit.exits).reduce((sum, count) => sum + count, 0);
  return {
    vmlet: VERSION,
    accelerator: { kind: acceleratorKind(), lab: isInLab(), host: hostFacts() },
    phases_ms: phases(exit.milestones, hash?.ms),
    exits: { total, ...exit.exits },
    fixups: exit.fixups,
    devices: deviceCounters(exit.devices),
    vcpus: config.cpus,
    memory_mib: config.memoryMib,
    kernel: { path: config.kernel, format, sha256: hash?.sha256 ?? "" },
    snapshot: snapshot ?? null,
    outcome: exit.outcome,
    exit_code: exitCode,
  };
}

/** What every report of ours begins with. */
export const REPORT_BEGIN = '{\n  "vmlet":';

/** Writes the report; the result is the exit code that it holds: the guest's own says more than a full disk. */
export async function writeReport(path: string, report: Report, file = openWhole("--report", path)): Promise<number> {
  return file.write(`${JSON.stringify(report, null, 2)}\n`, report.exit_code);
}

/** The same for any content; the result is `exitCode`, or the one for a file that cannot be written. */
export async function writeWhole(
  option: string,
  path: string,
  content: string | Uint8Array,
  exitCode: number,
): Promise<number> {
  return openWhole(option, path).write(content, exitCode);
}

/** A file that is complete when the guest has ended. */
export interface WholeFile {
  /** The result is `exitCode`, or the one for a file that cannot be written. */
  write(content: string | Uint8Array, exitCode: number): Promise<number>;
}

/** The report's file and what only the host's files say, for a process that opens none by then. */
export function openReport(path: string): WholeFile {
  acceleratorKind();
  hostFacts();
  return openWhole("--report", path);
}

/** It is empty from now on. */
export function openWhole(option: string, path: string): WholeFile {
  const problem: string[] = [];
  const file = new OutputFile(path, { failed: (why) => problem.push(why) });
  return {
    write: async (content, exitCode) => {
      await file.close(content);
      if (file.lost === 0) return exitCode;
      say(
        `${option} ${path}: cannot be written: ${problem[0] ?? "it takes too long"}; the guest has ended with ${String(exitCode)}`,
      );
      return exitCode === 0 ? EXIT_CANNOT_WRITE : exitCode;
    },
  };
}
