// What a VM costs while its guest sleeps: the monitor's processor time with every device and the
// balloon's statistics. On this host if it has a KVM, and in the lab, compared with QEMU.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { tapProblem } from "../../test/helpers/tap-guard.js";
import { acceleratorInWords } from "../stamp.js";
import { acceleratorKind } from "../../vmm/host/facts.js";
import {
  atMost,
  hasSeries,
  measure,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Failure,
  type Variant,
} from "../harness.js";
import { qemuArguments, vmletArguments } from "./guest.js";
import { LAB_QEMU, LAB_VMLET, LabHost, OUR_KERNEL } from "./lab-host.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";

const READY = "ready";
const COMMAND = ["sh", "-c", `echo ${READY}; sleep 1000`];
/** A kernel that is interpreted boots for long, `s`. */
const LIMIT_S = 120;
/** Then the guest sleeps and its monitor has done what it does after the boot, `s`. */
const SETTLED_S = 10;
const WATCHED_S = 20;
/** Of /proc/PID/stat, `Hz`: what the kernel shows to programs, whatever it counts in itself. */
const USER_HZ = 100;
const CPU = "idle_cpu_percent";
const LIMIT_PERCENT = 1;

const ON_HOST = "vmlet, this host";
const IN_LAB = "vmlet, lab";

function everyDevice(folder: string, hasTap: boolean): string[] {
  return [
    ...["--disk", `path=${folder}/disk`, "--vsock", `cid=3,path=${folder}/vsock`, "--console", "virtio", "--rng"],
    ...["--balloon", "16,deflate-on-oom,reporting", "--metrics", `${folder}/metrics`],
    ...(hasTap ? ["--net", "tap=auto,ip=192.0.2.1/24"] : []),
  ];
}

/** Ticks of user and system time, of all threads. */
function ticks(stat: string): number {
  // The program's name, in brackets, may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

function percent(before: string, after: string): number {
  return ((ticks(after) - ticks(before)) / USER_HZ / WATCHED_S) * 100;
}

/** True once `word` has come, false if it does not come in time. */
function says(output: Readable, word: string): Promise<boolean> {
  let text = "";
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), LIMIT_S * 1000);
    output.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      if (!text.includes(word)) return;
      clearTimeout(timer);
      resolve(true);
    });
    output.once("close", () => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}

function onHost(hasTap: boolean): Variant {
  return {
    name: ON_HOST,
    turn: async () => {
      const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
      writeFileSync(`${folder}/disk`, Buffer.alloc(2 ** 20));
      const argv = [...V8_FLAGS, "dist/vmlet.js", "boot", "--quiet", ...everyDevice(folder, hasTap)];
      const monitor = spawn(process.execPath, [...argv, "--", ...COMMAND], { stdio: ["ignore", "pipe", "ignore"] });
      const ended = new Promise((resolve) => monitor.once("close", resolve));
      try {
        const stat = `/proc/${String(monitor.pid)}/stat`;
        if (!(await says(monitor.stdout, READY))) throw new Error("The guest does not come up");
        await sleep(SETTLED_S * 1000);
        const before = readFileSync(stat, "utf8");
        await sleep(WATCHED_S * 1000);
        return { [CPU]: percent(before, readFileSync(stat, "utf8")) };
      } finally {
        monitor.kill();
        await ended;
        rmSync(folder, { recursive: true });
      }
    },
  };
}

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function inLab(host: LabHost, name: string, argv: readonly string[]): Variant {
  const script = `rm -f /tmp/said; ${argv.map(quote).join(" ")} </dev/null >/tmp/said 2>&1 & pid=$!
    tries=0; until grep -q ${READY} /tmp/said; do
      tries=$((tries + 1)); [ $tries -lt ${String(LIMIT_S)} ] || exit 1; sleep 1; done
    sleep ${String(SETTLED_S)}; cat /proc/$pid/stat >/output/before || exit 1
    sleep ${String(WATCHED_S)}; cat /proc/$pid/stat >/output/after || exit 1; kill $pid; wait $pid; true`;
  return {
    name,
    turn: async () => {
      const files = await host.shell(script);
      return {
        [CPU]: percent(files.get("before")?.toString("utf8") ?? "", files.get("after")?.toString("utf8") ?? ""),
      };
    },
  };
}

/** The same devices, but for the console (QEMU's is the serial port), the statistics (nobody asks) and vsock (needs vhost). */
const QEMU_DEVICES = [
  ...["-machine", "acpi=off", "-global", "virtio-mmio.force-legacy=false"],
  ...["-drive", "file=/tmp/disk,format=raw,if=none,id=disk", "-device", "virtio-blk-device,drive=disk"],
  ...["-netdev", "tap,id=net,script=no,downscript=no", "-device", "virtio-net-device,netdev=net"],
  ...["-device", "virtio-rng-device", "-device", "virtio-balloon-device"],
];

async function run(context: BenchContext): Promise<BenchResult> {
  context.progress("the lab is starting");
  const failures: Failure[] = [];
  const host = await LabHost.start();
  try {
    await host.shell("truncate -s 1M /tmp/disk");
    const variants = [
      inLab(host, IN_LAB, [...LAB_VMLET, ...vmletArguments(OUR_KERNEL, COMMAND), ...everyDevice("/tmp", true)]),
      inLab(host, "QEMU microvm, lab", [LAB_QEMU, ...qemuArguments(OUR_KERNEL, COMMAND), ...QEMU_DEVICES]),
    ];
    const kind = acceleratorKind();
    const tap = tapProblem();
    if (kind === "none") failures.push({ variant: ON_HOST, error: "there is no /dev/kvm" });
    else variants.unshift(onHost(tap === undefined));
    const measured = await measure(variants, { ...context, warmups: 0 });
    return {
      series: measured.series,
      failures: [...failures, ...measured.failures],
      targets: hasSeries(measured, ON_HOST, CPU)
        ? [atMost("an idle VM with all devices", samplesOf(measured, ON_HOST, CPU), LIMIT_PERCENT, "%")]
        : [],
      notes: [
        `This host: ${acceleratorInWords()}${tap === undefined ? "" : `; without a network device: ${tap}`}.`,
        `Percent of one core, over ${String(WATCHED_S)} s, the guest's own timer ticks included. The lab's processors are`,
        "interpreted: there, the same work takes many times as long.",
      ],
    };
  } finally {
    await host.close();
  }
}

export const idle: Bench = { name: "idle", about: "processor time of a VM that sleeps, with all devices", run };
