// Needs: a /dev/kvm that emulates kernel code. Boots directly on it, without the lab.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Report } from "../../vmm/cli/report.js";
import { probeQuirks } from "../../vmm/fixups/probe.js";
import { KvmSystem } from "../../vmm/kvm/system.js";
import { timeLimit } from "../../vmm/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { EXERCISES, buildGuestPrograms } from "../helpers/guest-programs.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const BOOT_LIMIT_MS = 400_000;

function whyNoSoftwareKvm(): string | undefined {
  const reason = whyNoKvm();
  if (reason !== undefined) return reason;
  const system = KvmSystem.open();
  try {
    return probeQuirks(system) === undefined ? "this host's KVM has hardware virtualization behind it" : undefined;
  } finally {
    system.close();
  }
}

interface Boot {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly report: Report;
}

describe("boot: software KVM", function () {
  this.timeout(BOOT_LIMIT_MS + 10_000);
  let folder = "";
  let programs = "";

  before(function () {
    const reason = whyNoSoftwareKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    programs = buildGuestPrograms(folder);
  });
  after(() => {
    if (folder === "") return;
    rmSync(folder, { recursive: true });
  });

  async function boot(...args: string[]): Promise<Boot> {
    const report = join(folder, "report.json");
    const child = spawn("dist/vmlet.js", ["boot", "--quiet", "--report", report, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: timeLimit("a boot", BOOT_LIMIT_MS),
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("latin1").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("latin1").on("data", (text: string) => (stderr += text));
    const status = await new Promise<number | null>((done) => child.once("close", done));
    const parsed = JSON.parse(readFileSync(report, "utf8")) as Report;
    if (parsed.phases_ms.first_run_to_init != null) countBoot();
    return { status, stdout, stderr, report: parsed };
  }

  it("boots directly, hands the command's status on, and reports what was done by hand", async () => {
    const { status, stdout, stderr, report } = await boot("--", "sh", "-c", "uname -sm; exit 7");
    assert.deepEqual([status, stdout, stderr], [7, "Linux x86_64\n", ""]);
    assert.equal(report.accelerator.lab, false);
    assert.match(report.kernel.path, /guest\/out\/fast\/vmlinux$/);
    assert.ok((report.fixups["syscall"] ?? 0) > 20, JSON.stringify(report.fixups));
    assert.ok((report.fixups["xsave"] ?? 0) > 0, JSON.stringify(report.fixups));
  });

  for (const program of ["exercise", "exercise-dynamic"]) {
    it(`${program}: vector state, floating point, signals, threads, timers and breakpoints hold`, async () => {
      const { status, stdout } = await boot("--initrd", programs, "--", program);
      assert.equal(stdout, EXERCISES.map((name) => `ok ${name}\n`).join(""));
      assert.equal(status, 0);
    });
  }

  it("200 cycles of fork, exec and pipe give what they should", async () => {
    const script = "i=0; while [ $i -lt 200 ]; do echo line $i | cat; i=$((i+1)); done";
    const { status, stdout } = await boot("--", "sh", "-c", script);
    assert.equal(stdout, Array.from({ length: 200 }, (_, i) => `line ${String(i)}\n`).join(""));
    assert.equal(status, 0);
  });

  it("the kernel for hardware, with two vCPUs, boots here too", async () => {
    const { status, stdout, report } = await boot("--cpus", "2", "--initrd", "guest/out/initramfs.cpio", "--", "nproc");
    assert.deepEqual([status, stdout, report.vcpus], [0, "2\n", 2]);
  });

  it("powers off, reboots and panics with the same codes as everywhere", async () => {
    for (const [command, status, outcome] of [
      ["reboot -f", 100, "reboot"],
      ["echo c > /proc/sysrq-trigger", 101, "panic"],
    ] as const) {
      const result = await boot("--", "sh", "-c", command);
      assert.deepEqual([result.status, result.report.outcome], [status, outcome]);
    }
  });
});
