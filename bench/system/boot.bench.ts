// Whole boots in the lab (DESIGN.md, "The lab"): our kernel and Debian's, by vmlet, QEMU microvm
// and the C monitor, with one initramfs and one command line.
import { EXIT_REBOOT } from "../../vmm/host/exit-codes.js";
import type { Report } from "../../vmm/cli/report.js";
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
import { pairwise } from "../statistics.js";
import { monitorArguments, qemuArguments, vmletArguments, type GuestImages } from "./guest.js";
import { DEBIAN_KERNEL, LAB_MONITOR, LAB_NODE, LAB_QEMU, LAB_VMLET, LabHost, OUR_KERNEL } from "./lab-host.js";

const COMMAND = ["reboot", "-f"];
const TO_INIT = "first_run_to_init_ms";
const WHOLE = "whole_process_ms";
const EXITS = "exits_total";

const LIMIT_OF_C = 1.25;
const LIMIT_EXITS = 1500;

/** Phases and exits from the report, and the whole process from a run without one: a report hashes the kernel. */
function vmlet(host: LabHost, name: string, images: GuestImages): Variant {
  const argv = [...LAB_VMLET, ...vmletArguments(images, COMMAND)];
  return {
    name,
    turn: async () => {
      const { wallMs } = await host.time(argv, [EXIT_REBOOT]);
      const { files } = await host.time([...argv, "--report", "/output/report.json"], [EXIT_REBOOT]);
      const report = JSON.parse(files.get("report.json")?.toString("utf8") ?? "") as Report;
      const { process_to_first_run, first_run_to_init, init_to_exit } = report.phases_ms;
      // A report leaves out what did not happen; a series must not.
      const sample: Record<string, number> = { [WHOLE]: wallMs, exits_io: 0, exits_mmio: 0, exits_intr: 0 };
      for (const [metric, value] of [
        ["process_to_first_run_ms", process_to_first_run],
        [TO_INIT, first_run_to_init],
        ["init_to_exit_ms", init_to_exit],
      ] as const) {
        if (value === null) throw new Error("The guest never reached init");
        sample[metric] = value;
      }
      for (const [reason, count] of Object.entries(report.exits)) sample[`exits_${reason}`] = count;
      return sample;
    },
  };
}

function qemu(host: LabHost, name: string, images: GuestImages): Variant {
  const argv = [LAB_QEMU, ...qemuArguments(images, COMMAND)];
  return { name, turn: async () => ({ [WHOLE]: (await host.time(argv)).wallMs }) };
}

function monitor(host: LabHost, name: string, images: GuestImages): Variant {
  const argv = [LAB_MONITOR, ...monitorArguments(images, COMMAND)];
  return {
    name,
    turn: async () => {
      const { wallMs, stdout } = await host.time(argv);
      const { exits, ...phases } = JSON.parse(stdout) as Sample;
      const named = Object.entries(phases).map(([phase, value]) => [`${phase}_ms`, value] as const);
      return { [WHOLE]: wallMs, ...Object.fromEntries(named), [EXITS]: exits ?? Number.NaN };
    },
  };
}

function node(host: LabHost, name: string): Variant {
  return { name, turn: async () => ({ [WHOLE]: (await host.time([...LAB_NODE, "-e", "0"])).wallMs }) };
}

const OURS = "vmlet, our kernel";
const C = "C monitor, our kernel";
const QEMU = "QEMU microvm, our kernel";
const NODE = "node -e 0";

async function run(context: BenchContext): Promise<BenchResult> {
  context.progress("the lab is starting");
  const host = await LabHost.start();
  try {
    const measured = await measure(
      [
        vmlet(host, OURS, OUR_KERNEL),
        monitor(host, C, OUR_KERNEL),
        qemu(host, QEMU, OUR_KERNEL),
        node(host, NODE),
        vmlet(host, "vmlet, Debian's kernel", DEBIAN_KERNEL),
        qemu(host, "QEMU microvm, Debian's kernel", DEBIAN_KERNEL),
      ],
      context,
    );
    return { ...measured, targets: targets(measured), notes: NOTES };
  } finally {
    await host.close();
  }
}

function targets(measured: Measurements): Target[] {
  if (!hasSeries(measured, OURS, WHOLE)) return [];
  const ours = (metric: string): readonly number[] => samplesOf(measured, OURS, metric);
  const list = [atMost("exits of a quiet boot", ours(EXITS), LIMIT_EXITS, "exits")];
  if (hasSeries(measured, C, TO_INIT)) {
    const name = "first KVM_RUN to init in the lab, quiet, against the C monitor";
    list.push(ratioAtMost(name, ours(TO_INIT), samplesOf(measured, C, TO_INIT), LIMIT_OF_C));
  }
  if (hasSeries(measured, QEMU, WHOLE) && hasSeries(measured, NODE, WHOLE)) {
    const both = pairwise(samplesOf(measured, QEMU, WHOLE), samplesOf(measured, NODE, WHOLE), (a, b) => a + b);
    list.push(ratioAtMost("whole process in the lab against QEMU microvm plus `node -e 0`", ours(WHOLE), both, 1));
  }
  return list;
}

const NOTES = [
  "In the lab: AMD-V emulated by QEMU TCG, Debian's kernel and its kvm_amd, 2 CPUs. Times are many times those of hardware.",
  "The same initramfs and command line for all; the guest's command is `reboot -f`, its reboot ends every monitor.",
  "exits_intr are returns of KVM_RUN after a signal of the monitor itself, not of the guest.",
];

export const boot: Bench = { name: "boot", about: "whole boots in the lab: vmlet, QEMU microvm, C monitor", run };
