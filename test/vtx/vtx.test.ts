// Needs: the built guest and Bochs; minutes. The monitor on Debian's kvm_intel, on an interpreted VT-x.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { IntelLab } from "../helpers/intel-lab.js";
import { describeRunning } from "../helpers/running.js";
import { skip } from "../helpers/skip.js";

const CLI_LIMIT_MS = 900_000;

describe("vtx: vmlet on kvm_intel", function () {
  this.timeout(1_200_000);
  let lab: IntelLab | undefined;
  const host = (): IntelLab => {
    assert.ok(lab !== undefined);
    return lab;
  };

  before(async function () {
    const missing = missingLabPrograms("intel");
    if (missing.length > 0) skip(this, `the Intel lab lacks ${missing.join(", ")}`);
    lab = await IntelLab.start();
  });

  after(async () => {
    await lab?.close();
  });

  it("the host is what it claims: VT-x with EPT and unrestricted guests, no AMD-V", async () => {
    const { stdout } = await host().shell(
      "grep -m1 -o -w vmx /proc/cpuinfo; grep -c -w svm /proc/cpuinfo; cd /sys/module/kvm_intel/parameters; cat ept unrestricted_guest nested",
    );
    assert.equal(stdout.toString("utf8"), "vmx\n0\nY\nY\nY\n");
  });

  it("standard input arrives over the serial line, every byte", async () => {
    const text = Array.from({ length: 6000 }, (_, i) => `line ${String(i)}`).join("\n");
    const { stdout } = await host().shell("md5sum", text);
    assert.equal(stdout.toString("utf8").split(" ")[0], createHash("md5").update(text).digest("hex"));
  });

  it("our kernel, one vCPU: runs a command, hands its status on, and sees no vmx", async () => {
    const script = "uname -sm; nproc; grep -m1 vendor_id /proc/cpuinfo; grep -c -w vmx /proc/cpuinfo; exit 7";
    const { status, stdout, stderr, report } = await host().boot(["--", "sh", "-c", script]);
    assert.equal(stdout, "Linux x86_64\n1\nvendor_id\t: GenuineIntel\n0\n");
    assert.equal(stderr, "");
    assert.equal(status, 7);
    assert.ok(report !== undefined);
    assert.deepEqual(
      [report.accelerator.kind, report.accelerator.lab, report.outcome, report.kernel.format],
      ["kvm-intel", true, "poweroff", "elf-pvh"],
    );
    assert.deepEqual(report.fixups, {});
    const { total = 0 } = report.exits;
    assert.ok(total > 0 && total <= 1500, `${String(total)} exits of a quiet boot`);
  });

  it("our kernel, two vCPUs, entered in 64-bit mode: both are online and take interrupts; --nested shows vmx", async () => {
    const script =
      "nproc; taskset 2 sh -c 'echo on the second'; grep -c '^flags.* vmx' /proc/cpuinfo; grep LOC: /proc/interrupts";
    const args = ["--cpus", "2", "--nested", "--protocol", "linux64"];
    const { status, stdout } = await host().boot([...args, "--", "sh", "-c", script]);
    assert.equal(status, 0);
    const [online, second, vmx, timer = ""] = stdout.trim().split("\n");
    assert.deepEqual([online, second, vmx], ["2", "on the second", "2"]);
    const counts = timer.trim().split(/\s+/).slice(1, 3).map(Number);
    assert.ok(counts.length === 2 && counts.every((count) => count > 0), timer);
  });

  it("a disk: what the guest writes and flushes is in the file, and it reads what was there", async () => {
    await host().shell("dd if=/dev/zero bs=1M count=2 2>/dev/null | tr '\\0' x >/tmp/disk");
    const script =
      "head -c 1048576 /dev/vda | md5sum; echo written by the guest | dd of=/dev/vda bs=4096 seek=300 conv=fsync 2>/dev/null";
    const { status, stdout, report } = await host().boot(["--disk", "path=/tmp/disk", "--", "sh", "-c", script]);
    const expected = createHash("md5")
      .update(Buffer.alloc(2 ** 20, "x"))
      .digest("hex");
    assert.equal(stdout.split(" ")[0], expected);
    assert.equal(status, 0);
    const read = await host().shell("dd if=/tmp/disk bs=4096 skip=300 count=1 2>/dev/null | head -n 1");
    assert.equal(read.stdout.toString("latin1"), "written by the guest\n");
    const { vda } = report?.devices as { vda: Record<string, number> };
    assert.ok((vda["flushes"] ?? 0) > 0 && (vda["errors"] ?? 0) === 0, JSON.stringify(vda));
  });

  it("a triple fault: exit status 102, with the registers", async () => {
    const poke = "echo b > /proc/sysrq-trigger";
    const { status, stderr, report } = await host().boot(["--cmdline", "reboot=t", "--", "sh", "-c", poke]);
    assert.deepEqual([status, report?.outcome], [102, "triple-fault"]);
    assert.match(stderr, /triple fault[\s\S]*rip/i);
  });
});

describe("vtx: the command line", function () {
  this.timeout(CLI_LIMIT_MS + 60_000);
  let folder: string | undefined;

  before(function () {
    const missing = missingLabPrograms("intel");
    if (missing.length > 0) skip(this, `the Intel lab lacks ${missing.join(", ")}`);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });

  after(() => {
    if (folder !== undefined) rmSync(folder, { recursive: true });
  });

  it("vmlet boot --accel lab-intel: output, status, report and a disk of this host pass through; nothing is left", async () => {
    assert.ok(folder !== undefined);
    const disk = join(folder, "disk.img");
    const report = join(folder, "report.json");
    writeFileSync(disk, Buffer.alloc(2 ** 20));
    const temporary = join(folder, "tmp");
    const script = "echo on VT-x; echo hello | dd of=/dev/vda bs=512 seek=9 conv=fsync 2>/dev/null; exit 9";
    const boot = ["boot", "--accel", "lab-intel", "--quiet", "--report", report, "--disk", `path=${disk}`];
    const { status, stdout, stderr } = await run(
      ["sh", "-c", 'mkdir "$TMPDIR" && exec "$0" "$@"', process.execPath, "dist/vmlet.js", ...boot].concat([
        "--",
        "sh",
        "-c",
        script,
      ]),
      { ...process.env, TMPDIR: temporary },
    );
    assert.equal(stdout, "on VT-x\n", stderr);
    assert.equal(status, 9);
    assert.match(stderr, /^vmlet: the Intel lab is slow: .*\nvmlet: the lab is starting …\n/);
    assert.equal(readFileSync(disk).toString("latin1", 9 * 512, 9 * 512 + 6), "hello\n");
    const { accelerator } = JSON.parse(readFileSync(report, "utf8")) as { accelerator: { kind: string } };
    assert.equal(accelerator.kind, "kvm-intel");
    const left = spawnSync("ls", ["-A", temporary], { encoding: "utf8" });
    assert.equal(left.stdout, "");
  });

  for (const [signal, status, what] of [
    ["SIGTERM", 143, "neither Bochs nor a file"],
    ["SIGKILL", null, "no Bochs"],
  ] as const) {
    it(`${signal} while it starts leaves ${what} behind`, async () => {
      assert.ok(folder !== undefined);
      const temporary = mkdtempSync(join(folder, "tmp-"));
      const child = spawn(process.execPath, ["dist/vmlet.js", "lab", "--cpu", "intel", "--", "true"], {
        stdio: "ignore",
        env: { ...process.env, TMPDIR: temporary },
      });
      const closed = new Promise<number | null>((done) => child.once("close", done));
      await until(() => bochsIn(temporary) > 0);
      child.kill(signal);
      assert.equal(await closed, status);
      await until(() => bochsIn(temporary) === 0);
      if (signal === "SIGTERM") assert.deepEqual(readdirSync(temporary), []);
    });
  }
});

/** A command to its end, which the reporter can watch: its last line so far is what it is busy with. */
async function run(argv: readonly string[], env: NodeJS.ProcessEnv) {
  const [file = "", ...rest] = argv;
  const child = spawn(file, rest, { env, stdio: ["ignore", "pipe", "pipe"], timeout: CLI_LIMIT_MS });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  describeRunning(() => `it said last: ${stderr.trimEnd().split("\n").at(-1) ?? ""}`);
  try {
    const status = await new Promise<number | null>((done) => child.once("close", done));
    return { status, stdout, stderr };
  } finally {
    describeRunning(undefined);
  }
}

/** How many Bochs run with their files in `folder`. */
function bochsIn(folder: string): number {
  return readdirSync("/proc").filter((name) => {
    try {
      const words = /^\d+$/.test(name) ? readFileSync(`/proc/${name}/cmdline`, "latin1") : "";
      return words.includes("bochs-bin") && words.includes(folder);
    } catch {
      // It has ended since.
      return false;
    }
  }).length;
}

/** The base may have to be built first. */
async function until(condition: () => boolean, seconds = 120): Promise<void> {
  for (let i = 0; !condition(); i++) {
    assert.ok(i < seconds * 10, "does not happen");
    await new Promise((done) => setTimeout(done, 100));
  }
}
