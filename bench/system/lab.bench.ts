// The lab from its saved state: whole processes from the outside, and what a guest takes in there from the command
// to its end, where the waiting vmlet is met by QEMU in a lab that was started in the same way.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Report } from "../../vmm/cli/report.js";
import { EXIT_REBOOT } from "../../vmm/host/exit-codes.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { INPUT_DISK_BYTES, makeInputDisk } from "../../vmm/lab/image.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { LabSession, type LabCommand } from "../../vmm/lab/session.js";
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

/** One command in a lab of its own; `start_ms` until it takes one. */
function fromInside(name: string, inputDisk: string, command: LabCommand, statuses: readonly number[]): Variant {
  return {
    name,
    turn: async () => {
      const started = performance.now();
      const session = await LabSession.start({ packageRoot: resolve("."), ...LAB_SIZE, inputs: [], inputDisk });
      try {
        if (!session.isRestored) throw new Error("The lab has no saved state");
        const ready = performance.now();
        const { status, stderr, files } = await session.run({ ...command, stdin: "" });
        const end = performance.now();
        if (!statuses.includes(status)) throw new Error(`Status ${String(status)}: ${stderr.toString("utf8").trim()}`);
        const bytes = files.get("report.json");
        const report = bytes === undefined ? undefined : (JSON.parse(bytes.toString("utf8")) as Report);
        const { process_to_first_run = null, first_run_to_init = null } = report?.phases_ms ?? {};
        return {
          start_ms: ready - started,
          [INSIDE]: end - ready,
          ...(process_to_first_run === null ? {} : { command_to_first_run_ms: process_to_first_run }),
          ...(first_run_to_init === null ? {} : { first_run_to_init_ms: first_run_to_init }),
        };
      } finally {
        await session.close();
      }
    },
  };
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
    const ours = [...vmletArguments(OUR_KERNEL, COMMAND), "--report", "/output/report.json"];
    const measured = await measure(
      [
        fromOutside(LAB, ["lab", "--", "true"]),
        fromOutside(BOOT, ["boot", "--accel", "lab", "--quiet", "--", "true"]),
        fromInside(OURS, disk.path, { argv: ours, isVmlet: true }, [EXIT_REBOOT]),
        fromInside(QEMU, disk.path, { argv: [LAB_QEMU, ...qemuArguments(OUR_KERNEL, COMMAND)] }, [0]),
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
    const [ours, qemu] = [samplesOf(measured, OURS, INSIDE), samplesOf(measured, QEMU, INSIDE)];
    list.push(ratioAtMost("command to the guest's end in the lab, against QEMU microvm", ours, qemu, 1));
  }
  return list;
}

const NOTES = [
  "From the saved state, which the warm-up round makes if need be. Every turn is a lab of its own: whatever runs in it is translated anew.",
  "In the lab, this host's clock counts from the command's frame to that of its end. vmlet has been started before the state was saved, and writes a report, which hashes the kernel; QEMU starts as ever.",
];

export const lab: Bench = { name: "lab", about: "the lab from its saved state, outside and inside", run };
