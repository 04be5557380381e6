// The lab from its saved state: whole processes from the outside, and what a guest takes in there from the command
// to its end, where the waiting vmlet is met by QEMU in a lab that was started in the same way.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Report } from "../../vmm/cli/report.js";
import { LabError } from "../../vmm/errors.js";
import { EXIT_REBOOT } from "../../vmm/host/exit-codes.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { INPUT_DISK_BYTES, makeInputDisk } from "../../vmm/lab/image.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import type { LabCommand } from "../../vmm/lab/command.js";
import { LabSession } from "../../vmm/lab/session.js";
import {
  atMost,
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Measurements,
  type Sample,
  type Target,
  type Variant,
} from "../harness.js";
import { qemuArguments, vmletArguments } from "./guest.js";
import { LAB_QEMU, OUR_KERNEL } from "./lab-host.js";

const LIMIT_MS = 120_000;
const LAB_SIZE = { memoryMib: 1536, cpus: 2 };
const COMMAND = ["reboot", "-f"];
const WHOLE = "whole_ms";
const INSIDE = "command_to_end_ms";

const LAB = "vmlet lab -- true";
const BOOT = "vmlet boot --accel lab -- true";
const OURS = "in the lab: vmlet, which waits in the state";
const QEMU = "in the lab: QEMU microvm";
const BOOTED = "a lab that boots, without the state: true";
const BOOTED_ROUNDS = 3;
const LIMIT_LAB_MS = 1200;
const LIMIT_BOOT_MS = 3000;

function fromOutside(name: string, argv: readonly string[]): Variant {
  return {
    name,
    turn: () => {
      const started = performance.now();
      const { status, stderr } = spawnSync("dist/vmlet.js", argv, {
        stdio: ["ignore", "ignore", "pipe"],
        timeout: timeLimit(name, LIMIT_MS),
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`Exit status ${String(status)}: ${stderr.trim()}`);
      return { [WHOLE]: performance.now() - started };
    },
  };
}

/** An emulated processor hangs now and then on a busy machine, and the lab ends with it: once is bad luck. */
async function inside(...what: Parameters<typeof insideOnce>): ReturnType<typeof insideOnce> {
  try {
    return await insideOnce(...what);
  } catch (error) {
    if (error instanceof LabError) return insideOnce(...what);
    throw error;
  }
}

/** One command in a lab of its own; `start_ms` until it takes one. */
async function insideOnce(
  inputDisk: string,
  command: LabCommand,
  status: number,
  useSavedState = true,
): Promise<[Sample, Report | undefined]> {
  const started = performance.now();
  const options = { packageRoot: resolve("."), ...LAB_SIZE, inputs: [], inputDisk };
  const session = await LabSession.start(options, { useSavedState });
  try {
    if (session.isRestored !== useSavedState) throw new Error("The lab has no saved state");
    const ready = performance.now();
    const done = await session.run({ ...command, stdin: "" });
    const sample = { start_ms: ready - started, [INSIDE]: performance.now() - ready };
    if (done.status !== status) {
      throw new Error(`Status ${String(done.status)}: ${done.stderr.toString("utf8").trim()}`);
    }
    const report = done.files.get("report.json");
    return [sample, report === undefined ? undefined : (JSON.parse(report.toString("utf8")) as Report)];
  } finally {
    await session.close();
  }
}

/** The whole from a run without a report, which hashes the kernel, the phases from one with it. */
function ours(inputDisk: string): Variant {
  const argv = vmletArguments(OUR_KERNEL, COMMAND);
  return {
    name: OURS,
    turn: async () => {
      const [sample] = await inside(inputDisk, { argv, isVmlet: true }, EXIT_REBOOT);
      const reported = [...argv, "--report", "/output/report.json"];
      const [, report] = await inside(inputDisk, { argv: reported, isVmlet: true }, EXIT_REBOOT);
      const { process_to_first_run, first_run_to_init, init_to_exit } = report?.phases_ms ?? {};
      if (process_to_first_run == null || first_run_to_init == null || init_to_exit == null) {
        throw new Error("The guest never reached init");
      }
      return {
        ...sample,
        command_to_first_run_ms: process_to_first_run,
        first_run_to_init_ms: first_run_to_init,
        init_to_exit_ms: init_to_exit,
      };
    },
  };
}

function qemu(inputDisk: string): Variant {
  const argv = [LAB_QEMU, ...qemuArguments(OUR_KERNEL, COMMAND)];
  return { name: QEMU, turn: async () => (await inside(inputDisk, { argv }, 0))[0] };
}

/** What the state spares. */
function booted(inputDisk: string): Variant {
  const turn = async (): Promise<Sample> => (await inside(inputDisk, { argv: ["true"] }, 0, false))[0];
  return { name: BOOTED, rounds: BOOTED_ROUNDS, turn };
}

async function run(context: BenchContext): Promise<BenchResult> {
  const missing = missingLabPrograms();
  if (missing.length > 0) throw new Error(`The lab lacks ${missing.join(", ")}`);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  try {
    const disk = makeInputDisk(
      folder,
      [
        { from: "guest/out/default/vmlinux", to: "bench/vmlinux" },
        { from: "guest/out/initramfs.cpio", to: "bench/initramfs.cpio" },
      ],
      INPUT_DISK_BYTES,
    );
    await disk.filled;
    const measured = await measure(
      [
        fromOutside(LAB, ["lab", "--", "true"]),
        fromOutside(BOOT, ["boot", "--accel", "lab", "--quiet", "--", "true"]),
        ours(disk.path),
        qemu(disk.path),
        booted(disk.path),
      ],
      context,
    );
    return { ...measured, targets: targets(measured), notes: NOTES };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function targets(measured: Measurements): Target[] {
  const list: Target[] = [];
  const whole = (variant: string, limitMs: number): void => {
    if (hasSeries(measured, variant, WHOLE)) {
      list.push(atMost(`${variant}, whole process`, samplesOf(measured, variant, WHOLE), limitMs, "ms"));
    }
  };
  whole(LAB, LIMIT_LAB_MS);
  whole(BOOT, LIMIT_BOOT_MS);
  if (hasSeries(measured, OURS, INSIDE) && hasSeries(measured, QEMU, INSIDE)) {
    const name = "command to the guest's end in the lab, against QEMU microvm";
    list.push(ratioAtMost(name, samplesOf(measured, OURS, INSIDE), samplesOf(measured, QEMU, INSIDE), 1));
  }
  return list;
}

const NOTES = [
  "From the saved state, which the warm-up round makes if need be. Every turn is a lab of its own: whatever runs in it is translated anew.",
  "In the lab, this host's clock counts from the command's frame to that of its end. vmlet has been started before the state was saved; QEMU starts as ever.",
];

export const lab: Bench = { name: "lab", about: "the lab from its saved state, outside and inside", run };
