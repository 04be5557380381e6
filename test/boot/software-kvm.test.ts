// Needs: a /dev/kvm that emulates kernel code. Boots directly on it, without the lab.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { MetricsLine } from "../../vmm/cli/metrics.js";
import type { Report } from "../../vmm/cli/report.js";
import { probeQuirks } from "../../vmm/fixups/probe.js";
import { KvmSystem } from "../../vmm/kvm/system.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { EXERCISES, buildGuestPrograms } from "../helpers/guest-programs.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM, start } from "../helpers/program.js";
import { forkExecOutput, forkExecScript } from "../helpers/fork-exec.js";
import { skip } from "../helpers/skip.js";
import { tapProblem } from "../helpers/tap-guard.js";

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
    const child = spawn(PROGRAM, ["boot", "--quiet", "--report", report, ...args], {
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

  // test/soak/fork-exec.test.ts has 400 cycles.
  it("boots directly, gives what 12 cycles of fork, exec and pipe should, hands the command's status on, and reports what was done by hand; without the I/O APIC, each of eight disks has its interrupt", async () => {
    // Two of them once had none.
    const disks = Array.from({ length: 8 }, (_, i) => join(folder, `noapic-${String(i)}.img`));
    for (const [i, path] of disks.entries()) {
      writeFileSync(path, `disk ${String(i)}\n`);
      truncateSync(path, 4096);
    }
    const script = `uname -sm; ${forkExecScript(12)}; cat /dev/vd? | tr -d '\\0'; exit 7`;
    const options = ["--cmdline", "noapic", ...disks.flatMap((path) => ["--disk", `path=${path}`])];
    const { status, stdout, stderr, report } = await boot(...options, "--", "sh", "-c", script);
    const read = disks.map((_, i) => `disk ${String(i)}\n`).join("");
    assert.deepEqual([status, stdout, stderr], [7, `Linux x86_64\n${forkExecOutput(12)}${read}`, ""]);
    assert.equal(report.accelerator.lab, false);
    assert.match(report.kernel.path, /guest\/out\/fast\/vmlinux$/);
    assert.ok((report.fixups["syscall"] ?? 0) > 20, JSON.stringify(report.fixups));
    assert.ok((report.fixups["xsave"] ?? 0) > 0, JSON.stringify(report.fixups));
  });

  it("exercise, static and dynamic: vector state, floating point, signals, threads, timers and breakpoints hold; a panic's code is the same as everywhere", async () => {
    const script = "exercise && echo = && exercise-dynamic && echo c >/proc/sysrq-trigger";
    const { status, stdout, report } = await boot("--initrd", programs, "--", "sh", "-c", script);
    const expected = EXERCISES.map((name) => `ok ${name}\n`).join("");
    assert.equal(stdout.slice(0, 2 * expected.length + 2), `${expected}=\n${expected}`, stdout);
    assert.deepEqual([status, report.outcome], [101, "panic"]);
  });

  // It goes on to its programs and disks in test/soak/two-vcpus.test.ts: that takes a minute or more of processor time.
  it("two vCPUs: the kernel for hardware brings both up, without the I/O APIC", async () => {
    const report = join(folder, "two.json");
    const words = ["boot", "--report", report, "--cpus", "2", "--memory", "64", "--cmdline", "noapic", "--", "true"];
    const run = start([PROGRAM, ...words], {}, timeLimit("a boot", BOOT_LIMIT_MS));
    await run.until("smp: Brought up 1 node, 2 CPUs");
    run.child.kill("SIGTERM");
    assert.equal((await run.ended).status, 143);
    const { kernel, vcpus } = JSON.parse(readFileSync(report, "utf8")) as Report;
    assert.match(kernel.path, /guest\/out\/default\/vmlinux$/);
    assert.equal(vcpus, 2);
  });

  it("a disk that boots its own init gets the kernel for hardware, which has what systemd needs", async () => {
    const disk = join(folder, "own-init.img");
    writeFileSync(disk, Buffer.alloc(2 ** 20));
    const metrics = join(folder, "own-init.jsonl");
    const report = join(folder, "own-init.json");
    const argv = ["boot", "--quiet", "--report", report, "--metrics", metrics, "--disk", `path=${disk},root`];
    const child = spawn(PROGRAM, argv, { stdio: "ignore" });
    const closed = once(child, "close");
    // It runs: no more is asked of it.
    while (!existsSync(metrics) || readFileSync(metrics, "latin1") === "") {
      assert.equal(child.exitCode, null);
      await sleep(100);
    }
    child.kill("SIGTERM");
    await closed;
    const { kernel } = JSON.parse(readFileSync(report, "utf8")) as Report;
    assert.match(kernel.path, /guest\/out\/default\/vmlinux$/);
  });

  it("all virtio devices at once, each with something to do, and a line of metrics a second", async function () {
    const problem = tapProblem();
    if (problem !== undefined) skip(this, problem);
    const at = (name: string): string => join(folder, name);
    writeFileSync(at("a.img"), "first");
    writeFileSync(at("b.img"), "second");
    for (const name of ["a.img", "b.img"]) truncateSync(at(name), 2 ** 20);
    const script = `cat /sys/bus/virtio/devices/virtio*/device | tr '\\n' ' '; echo
      printf FIRST | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; head -c 6 /dev/vdb; echo; blockdev --getro /dev/vdb
      ip link set eth0 up; ip addr add 172.31.248.2/24 dev eth0; ping -c 2 172.31.248.1 | grep -c ttl=
      head -c 512 /dev/hwrng | wc -c; ls /dev/vsock; tty; sleep 5`;
    const running = boot(
      ...["--disk", `path=${at("a.img")}`, "--disk", `path=${at("b.img")},readonly`, "--console", "virtio", "--rng"],
      ...["--net", "tap=auto,ip=172.31.248.1/24", "--vsock", `cid=3,path=${at("sock")}`],
      ...[
        "--balloon",
        "16,deflate-on-oom,reporting",
        "--metrics",
        at("metrics"),
        "--control",
        at("control"),
        "--",
        "sh",
        "-c",
        script,
      ],
    );
    while (!existsSync(at("control"))) await sleep(20);
    const control = spawn(PROGRAM, ["balloon", at("control"), "24"], { stdio: "inherit" });
    const [controlStatus] = (await once(control, "close")) as [number | null];
    const { status, stdout, stderr, report } = await running;
    assert.deepEqual([controlStatus, existsSync(at("control"))], [0, false]);
    const ids = "0x0002 0x0002 0x0001 0x0013 0x0003 0x0004 0x0005 ";
    assert.deepEqual([stdout, stderr, status], [`${ids}\nsecond\n1\n2\n512\n/dev/vsock\nnot a tty\n`, "", 0]);
    assert.equal(readFileSync(at("a.img"), "latin1").slice(0, 5), "FIRST");
    assert.equal(existsSync(at("sock")), false);
    const names = ["vda", "vdb", "net0", "vsock0", "console0", "rng0", "balloon0"];
    assert.deepEqual(Object.keys(report.devices), names);
    for (const name of names) assert.equal(report.devices[name]?.["failures"], 0, name);
    const lines = readFileSync(at("metrics"), "utf8").trim().split("\n");
    const last = JSON.parse(lines.at(-1) ?? "") as MetricsLine;
    assert.ok(lines.length >= 5, `${String(lines.length)} lines`);
    assert.deepEqual([last.state, last.balloon?.actual_bytes], ["ended", 24 * 2 ** 20]);
    assert.ok((last.devices["vda"]?.["flushes"] ?? 0) >= 1 && (last.devices["rng0"]?.["bytes"] ?? 0) >= 512);
  });
});
