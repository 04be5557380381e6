// From the start of the process to its first KVM_RUN, natively on this host, with our kernel
// loaded: vmlet, QEMU microvm and the C monitor, and `node -e 0` as the floor of any Node
// program. A preloaded library ends each monitor at its first KVM_RUN (bench/c/first-run.c).
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import {
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Sample,
  type Target,
  type Variant,
} from "../harness.js";
import { compileLibrary, compileProgram } from "../programs.js";
import { acceleratorInWords } from "../stamp.js";
import { GUEST_MIB, monitorArguments, qemuArguments, vmletArguments, type GuestImages } from "./guest.js";
import { monitorMemory } from "./smaps.js";

const FIRST_RUN = "process_to_first_run_ms";
const NODE = "node -e 0";
const VMLET = "vmlet";
const QEMU = "QEMU microvm";
/** What our start may cost against Node's own. */
const LIMIT_OF_NODE = 1.6;
const QEMU_CPU_FOR_PVM = "host,-arch-capabilities";

interface Stopwatch {
  readonly start_ns: number;
  readonly wall_ms: number;
  readonly status: number;
}

/** The trace's milestones on vmlet's way to the first KVM_RUN, in order, and what each step is. */
const STEPS: readonly (readonly [event: RegExp, metric: string])[] = [
  [/ loaded$/, "step_exec_ms"],
  [/\/vmlet\.js$/, "step_node_bootstrap_ms"],
  [/\/cli\.cache$/, "step_bundle_read_ms"],
  [/\/vmlinux$/, "step_bundle_koffi_and_options_ms"],
  [/ KVM_CREATE_VM$/, "step_guest_memory_and_kernel_read_ms"],
  [/ KVM_RUN$/, "step_kvm_setup_ms"],
];

/** Time of an event since the start, `ms`. The library is loaded into env and into node: the last one counts. */
function eventMs(trace: string, event: RegExp, startNs: number): number {
  const line = trace
    .trim()
    .split("\n")
    .findLast((one) => event.test(one));
  if (line === undefined) throw new Error(`The trace lacks ${String(event)}`);
  return (Number(line.split(" ")[0]) - startNs) / 1e6;
}

function steps(trace: string, startNs: number): Sample {
  let before = 0;
  return Object.fromEntries(
    STEPS.map(([event, metric]) => {
      const at = eventMs(trace, event, startNs);
      const step = at - before;
      before = at;
      return [metric, step];
    }),
  );
}

async function run(context: BenchContext): Promise<BenchResult> {
  const stopwatch = resolve(compileProgram("stopwatch"));
  const firstRun = resolve(compileLibrary("first-run"));
  const monitor = resolve(compileProgram("monitor"));
  const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  const images: GuestImages = {
    kernel: resolve("guest/out/default/vmlinux"),
    initrd: resolve("guest/out/initramfs.cpio"),
    memoryMib: GUEST_MIB,
  };
  const time = (program: readonly string[], preload: boolean, env: Record<string, string> = {}): Stopwatch => {
    const out = join(folder, "time.json");
    rmSync(out, { force: true });
    const argv = [...(preload ? ["-p", firstRun] : []), out, ...program];
    const { stderr } = spawnSync(stopwatch, argv, {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined, ...env },
      encoding: "utf8",
    });
    const result = JSON.parse(readFileSync(out, "utf8")) as Stopwatch;
    if (result.status !== 0) throw new Error(`ends with status ${String(result.status)}: ${stderr.trim()}`);
    return result;
  };
  const files = { trace: join(folder, "trace"), smaps: join(folder, "smaps") };
  const memory = (program: readonly string[]): Sample => {
    time(program, true, { FIRST_RUN_SMAPS: files.smaps });
    const { rss, pss, private: own } = monitorMemory(readFileSync(files.smaps, "utf8"), GUEST_MIB * 1024);
    return { rss_at_first_run_mib: rss / 1024, pss_at_first_run_mib: pss / 1024, private_at_first_run_mib: own / 1024 };
  };
  // Not the whole life of the process: its end frees a VM, and that is not part of the start.
  const startOf = (name: string, program: readonly string[], stepsOf?: typeof steps): Variant => ({
    name,
    turn: () => {
      const { start_ns } = time(program, true, { FIRST_RUN_TRACE: files.trace });
      const trace = readFileSync(files.trace, "utf8");
      return { [FIRST_RUN]: eventMs(trace, / KVM_RUN$/, start_ns), ...memory(program), ...stepsOf?.(trace, start_ns) };
    },
  });

  const vmlet = [resolve("dist/vmlet.js"), ...vmletArguments(images, ["true"])];
  const qemu = findProgram("qemu-system-x86_64") ?? "qemu-system-x86_64";
  const variants: Variant[] = [
    { name: NODE, turn: () => ({ whole_process_ms: time([process.execPath, "-e", "0"], false).wall_ms }) },
    startOf(VMLET, vmlet, steps),
    startOf(QEMU, [qemu, ...qemuArguments(images, ["true"], QEMU_CPU_FOR_PVM)]),
    startOf("C monitor", [monitor, ...monitorArguments(images, ["true"])]),
  ];
  try {
    const measured = await measure(variants, context);
    return { ...measured, targets: targets(measured), notes: notes() };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function targets(measured: Parameters<typeof samplesOf>[0]): Target[] {
  if (!hasSeries(measured, VMLET, FIRST_RUN)) return [];
  const ours = samplesOf(measured, VMLET, FIRST_RUN);
  const list: Target[] = [];
  if (hasSeries(measured, NODE, "whole_process_ms")) {
    const floor = samplesOf(measured, NODE, "whole_process_ms");
    list.push(ratioAtMost("process start to first KVM_RUN against `node -e 0`", ours, floor, LIMIT_OF_NODE));
  }
  if (hasSeries(measured, QEMU, FIRST_RUN)) {
    const theirs = samplesOf(measured, QEMU, FIRST_RUN);
    list.push(ratioAtMost("process start to first KVM_RUN against QEMU microvm", ours, theirs, 1));
  }
  return list;
}

function notes(): string[] {
  return [
    `/dev/kvm of this host: ${acceleratorInWords()}. ${String(GUEST_MIB)} MiB, our vmlinux and initramfs loaded.`,
    "Every process without NODE_EXTRA_CA_CERTS, as vmlet's first line runs Node. vmlet is started through that line.",
    "Memory is the monitor's own at the first KVM_RUN: the mapping of the guest's RAM is left out.",
    "QEMU keeps a copy of the kernel file outside guest RAM until its firmware has loaded it.",
  ];
}

export const start: Bench = {
  name: "start",
  about: "process start to first KVM_RUN, and memory there, on this host",
  run,
};
