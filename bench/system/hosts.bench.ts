// The same boot (kernel, initramfs, command) on every kind of host at hand: this one's /dev/kvm, the same in
// a Docker container, and both labs.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AcceleratorChoice } from "../../vmm/lab/accelerator.js";
import type { Report } from "../../vmm/cli/report.js";
import type { LabCpu } from "../../vmm/lab/cpu.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { bareContainer, openDocker, whyNoBareContainer, type DockerHost } from "../../test/helpers/docker-host.js";
import { measure, type Bench, type BenchContext, type BenchResult, type Failure, type Variant } from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { GUEST_MIB } from "./guest.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";

const BOOT_LIMIT_MS = 600_000;
/** A lab starts anew for every boot: few rounds, enough to see the spread; Bochs takes minutes. */
const LABS: readonly (readonly [accel: AcceleratorChoice, cpu: LabCpu, rounds: number])[] = [
  ["lab", "amd", 3],
  ["lab-intel", "intel", 1],
];

const LAB_DIED = "The lab has stopped unexpectedly";

interface Place {
  /** argv that starts vmlet there. */
  readonly vmlet: readonly string[];
  /** Folders as vmlet sees them there: the built guest, and where the report goes. */
  readonly guest: string;
  readonly reports: string;
}

function boot(
  name: string,
  { vmlet, guest, reports }: Place,
  report: string,
  extra: Partial<Variant> & { accel: string },
): Variant {
  const { accel, ...more } = extra;
  const images = ["--kernel", join(guest, "fast/vmlinux"), "--initrd", join(guest, "tiny.cpio")];
  const words = [
    "boot",
    "--accel",
    accel,
    "--quiet",
    ...images,
    "--report",
    join(reports, "report.json"),
    "--",
    "true",
  ];
  const [file = "", ...argv] = [...vmlet, ...words];
  const once = (): { wallMs: number; status: number | null; stderr: string } => {
    rmSync(report, { force: true });
    const started = performance.now();
    const { status, stderr } = spawnSync(file, argv, {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: timeLimit(`a boot (${name})`, BOOT_LIMIT_MS),
      encoding: "utf8",
    });
    return { wallMs: performance.now() - started, status, stderr };
  };
  return {
    name,
    ...more,
    turn: () => {
      let { wallMs, status, stderr } = once();
      // An emulated processor hangs now and then on a busy machine, and the lab ends with it: once is bad luck.
      if (status !== 0 && stderr.includes(LAB_DIED)) ({ wallMs, status, stderr } = once());
      if (status !== 0) throw new Error(`Exit status ${String(status)}: ${stderr.trim()}`);
      const { phases_ms: ms, exits } = JSON.parse(readFileSync(report, "utf8")) as Report;
      return {
        whole_ms: wallMs,
        process_to_first_run_ms: ms.process_to_first_run ?? Number.NaN,
        first_run_to_init_ms: ms.first_run_to_init ?? Number.NaN,
        init_to_exit_ms: ms.init_to_exit ?? Number.NaN,
        exits_total: exits["total"] ?? 0,
      };
    },
  };
}

async function run(context: BenchContext): Promise<BenchResult> {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  const report = join(folder, "report.json");
  const guest = realpathSync("guest/out");
  const own: Place = { vmlet: ["dist/vmlet.js"], guest, reports: folder };
  const variants: Variant[] = [boot("this host", own, report, { accel: "kvm" })];
  const failures: Failure[] = [];
  let docker: DockerHost | undefined;
  try {
    const noDocker = whyNoBareContainer();
    if (noDocker === undefined) {
      context.progress("Docker is starting");
      docker = await openDocker();
      const inContainer = bareContainer(docker);
      const reports = join(docker.folder, "reports");
      mkdirSync(reports);
      const volumes = ["--volume", `${guest}:/guest:ro`, "--volume", `${reports}:/reports`];
      const vmlet = inContainer(
        ["--device", "/dev/kvm", ...volumes],
        [process.execPath, ...V8_FLAGS, "/vmlet/dist/vmlet.js"],
      );
      const place = { vmlet, guest: "/guest", reports: "/reports" };
      variants.push(boot("this host, in Docker", place, join(reports, "report.json"), { accel: "kvm" }));
    } else {
      failures.push({ variant: "this host, in Docker", error: noDocker });
    }
    for (const [accel, cpu, rounds] of LABS) {
      const missing = missingLabPrograms(cpu);
      if (missing.length === 0) variants.push(boot(accel, own, report, { accel, rounds }));
      else failures.push({ variant: accel, error: `not installed: ${missing.join(", ")}` });
    }
    const measured = await measure(variants, context);
    const notes = [
      `${acceleratorInWords()}. The fast kernel, ${String(GUEST_MIB)} MiB, init alone, the command \`true\`.`,
      "whole_ms is by this host's clock, with Docker's client or the lab's start; the phases are by the clock where vmlet runs.",
    ];
    return { ...measured, failures: [...failures, ...measured.failures], targets: [], notes };
  } finally {
    await docker?.close();
    rmSync(folder, { recursive: true });
  }
}

export const hosts: Bench = { name: "hosts", about: "the same boot on every kind of host at hand", run };
