// Needs: hardware KVM, or the lab. Real kernels, seen through the program's command line.
import assert from "node:assert/strict";
import { guestRunner, whyNoBoot, type GuestRunner } from "../helpers/guest-runner.js";
import { EXERCISES } from "../helpers/guest-programs.js";
import { jailMode } from "../helpers/jail-lane.js";
import { skip } from "../helpers/skip.js";

type Entry = "elf-linux64" | "elf-pvh" | "bzimage";
const ENTRIES: Readonly<Record<Entry, readonly [protocol: string, file: "vmlinux" | "bzImage"]>> = {
  "elf-linux64": ["linux64", "vmlinux"],
  "elf-pvh": ["pvh", "vmlinux"],
  bzimage: ["auto", "bzImage"],
};

describe("boot: linux", function () {
  this.timeout(200_000);
  let guest: GuestRunner;

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
  });

  it("our kernel, one vCPU: runs a command, hands its status on, and reports", async () => {
    const { status, stdout, stderr, report } = await guest.boot([
      "--quiet",
      "--",
      "sh",
      "-c",
      "uname -sm; nproc; exit 7",
    ]);
    assert.equal(stdout, "Linux x86_64\n1\n");
    assert.equal(stderr, "");
    assert.equal(status, 7);
    assert.ok(report !== undefined);
    assert.deepEqual(
      [report.outcome, report.exit_code, report.vcpus, report.memory_mib, report.kernel.format],
      ["poweroff", 7, 1, 128, "elf-pvh"],
    );
    assert.match(report.accelerator.kind, /^kvm-(amd|intel)$/);
    assert.match(report.kernel.sha256, /^[0-9a-f]{64}$/);
    const { total, ...byReason } = report.exits;
    assert.equal(
      total,
      Object.values(byReason).reduce((sum, count) => sum + count, 0),
    );
    assert.ok(total <= 1500, `${String(total)} exits of a quiet boot`);
    const { process_to_first_run, first_run_to_init, init_to_exit, total: whole } = report.phases_ms;
    const parts = [process_to_first_run, first_run_to_init, init_to_exit].map((ms) => ms ?? -1);
    assert.ok(parts.every((ms) => ms > 0) && Math.abs(parts.reduce((a, b) => a + b) - whole) < 1, parts.join(" "));
  });

  it("our kernel, two vCPUs: both are online and take interrupts, and the last lines of a command that ends at once arrive", async () => {
    const script =
      "nproc; grep -c ^processor /proc/cpuinfo; taskset 2 sh -c 'echo on the second'; grep LOC: /proc/interrupts; seq 1 300; exit 3";
    const { status, stdout, report } = await guest.boot(["--quiet", "--cpus", "2", "--", "sh", "-c", script]);
    assert.equal(status, 3);
    const [online, processors, second, timer = "", ...last] = stdout.split("\n");
    assert.deepEqual([online, processors, second], ["2", "2", "on the second"]);
    const counts = timer.trim().split(/\s+/).slice(1, 3).map(Number);
    assert.ok(counts.length === 2 && counts.every((count) => count > 0), timer);
    assert.equal(report?.vcpus, 2);
    // Once cut off: the command led its session, whose end flushed what the port had not sent.
    assert.equal(last.join("\n"), Array.from({ length: 300 }, (_, i) => `${String(i + 1)}\n`).join(""));
  });

  it("eight vCPUs: all are online, and each runs a program; CPUID tells the topology and hides vmx and svm; a reboot asked of init", async () => {
    const script = `nproc; for cpu in 0 1 2 3 4 5 6 7; do taskset -c $cpu cut -d' ' -f39 /proc/self/stat; done
      grep -E '^(cpu cores|siblings|apicid|flags)' /proc/cpuinfo; reboot; sleep 30`;
    const { status, stdout, report } = await guest.boot(["--quiet", "--cpus", "8", "--", "sh", "-c", script]);
    const all = stdout.trim().split("\n");
    // Field 39 is the processor that a process has last run on.
    assert.deepEqual([status, all.slice(0, 9)], [100, ["8", "0", "1", "2", "3", "4", "5", "6", "7"]]);
    assert.deepEqual([report?.vcpus, report?.outcome], [8, "reboot"]);
    const lines = all.slice(9).map((line) => line.split(/\s*:\s*/));
    const values = (key: string): (string | undefined)[] =>
      lines.filter(([name]) => name === key).map(([, value]) => value);
    const eight = Array.from({ length: 8 }, (_, index) => String(index));
    assert.deepEqual(
      [values("apicid"), values("siblings"), values("cpu cores")],
      [eight, eight.map(() => "8"), eight.map(() => "8")],
    );
    const flags = values("flags").flatMap((text) => (text ?? "").split(" "));
    assert.ok(flags.includes("hypervisor") && !flags.includes("svm") && !flags.includes("vmx"));
  });

  it("Debian's stock kernel, two vCPUs: finds interrupt controllers and a clock that interrupts through ACPI, and powers off through it", async () => {
    const script =
      "uname -r; nproc; grep -c IO-APIC /proc/interrupts; dmesg | grep -c 'ACPI: Using IOAPIC'; ls /sys/firmware/acpi/tables | tr '\\n' ' '; echo; rtc; poweroff -f";
    const images = ["--kernel", guest.files.debianKernel, "--initrd", guest.files.exercises];
    const args = ["--quiet", ...images, "--memory", "256", "--cpus", "2"];
    const { status, stdout, report } = await guest.boot([...args, "--", "sh", "-c", script]);
    assert.equal(status, 0);
    const [release = "", online, lines, ioApic, tables = "", ...clock] = stdout.trim().split("\n");
    assert.match(release, /cloud-amd64$/);
    assert.deepEqual([online, ioApic], ["2", "1"]);
    assert.ok(Number(lines) > 0);
    for (const table of ["APIC", "DSDT", "FACP", "FACS"]) assert.ok(tables.split(" ").includes(table), tables);
    assert.deepEqual(
      clock.slice(0, 3),
      ["update interrupt", "alarm", "setting"],
      "Once, IRQ 8 was described and never raised",
    );
    assert.deepEqual([report?.kernel.format, report?.outcome], ["bzimage", "poweroff"]);
  });

  it("RAM above 3 GiB goes on above 4 GiB; a power-off asked of init", async () => {
    const script =
      "grep MemTotal /proc/meminfo; grep -c 'System RAM' /proc/iomem; grep -i '100000000-' /proc/iomem; poweroff; sleep 30";
    const { status, stdout, report } = await guest.boot(["--quiet", "--memory", "3584", "--", "sh", "-c", script]);
    assert.deepEqual([status, report?.outcome], [0, "poweroff"]);
    const total = Number(/MemTotal:\s+(\d+)/.exec(stdout)?.[1]);
    assert.ok(total > 3_300_000, stdout);
    assert.match(stdout, /100000000-11fffffff : System RAM/);
  });

  /** Some are of a kernel that is entered in one of the other ways; more ends are those of other tests here. */
  const ends: [what: string, command: string, status: number, outcome: string, entry?: Entry][] = [
    ["a panic", "echo c > /proc/sysrq-trigger", 101, "panic"],
    ["a reboot", "reboot -f", 100, "reboot", "elf-linux64"],
    ["a halt of a kernel that cannot power off", "poweroff -f", 0, "poweroff", "bzimage"],
    ["a background process that never stops writing", "yes & sleep 1; exit 6", 6, "poweroff", "elf-pvh"],
  ];
  for (const [what, command, expected, outcome, entry] of ends) {
    const isEntered = entry === undefined ? "" : `, entered as ${entry}`;
    it(`${what}${isEntered}: exit status ${String(expected)}, outcome ${outcome}`, async () => {
      const [protocol, file] = ENTRIES[entry ?? "elf-pvh"];
      const kernel = entry === undefined ? [] : ["--protocol", protocol, "--kernel", guest.files[file]];
      const { status, report } = await guest.boot(["--quiet", ...kernel, "--", "sh", "-c", command]);
      assert.deepEqual(
        [status, report?.outcome, report?.exit_code, report?.kernel.format],
        [expected, outcome, expected, entry ?? "elf-pvh"],
      );
    });
  }

  it("exercise, static and dynamic: floating point, signals, threads, timers and breakpoints hold; a command that is not there: 127", async () => {
    const both = ["sh", "-c", "exercise && echo = && exercise-dynamic && exec /no/such/program 2>/dev/null"];
    const { status, stdout } = await guest.boot(["--quiet", "--initrd", guest.files.exercises, "--", ...both]);
    const expected = EXERCISES.map((name) => `ok ${name}\n`).join("");
    // Where the processor has no AVX2, the program says so.
    assert.equal(stdout.replaceAll("no avx2 here\n", ""), `${expected}=\n${expected}`);
    assert.equal(status, 127);
  });

  it("a triple fault: exit status 102, with the registers", async () => {
    const poke =
      "printf '\\0' | dd of=/dev/mem bs=1 count=1 seek=0 conv=notrunc 2>/dev/null; echo b > /proc/sysrq-trigger";
    const { status, stderr, report } = await guest.boot(["--quiet", "--cmdline", "reboot=t", "--", "sh", "-c", poke]);
    assert.deepEqual([status, report?.outcome], [102, "triple-fault"]);
    assert.match(stderr, /triple fault[^]*\brip=0x[0-9a-f]+/);
  });

  it("standard input reaches the command, every byte, and so does its end; a signal of the command to its own process group does not reach init", async () => {
    // More than a terminal, a pipe and the serial port take, with what a terminal would eat, and no newline at the end.
    const lines = Array.from({ length: 30_000 }, (_, i) => `line ${String(i)}\x03\x04\x0f\x13\x7f\r`).join("\n");
    const script = "tee /tmp/input | md5sum; wc -lc </tmp/input; echo done; sleep 30 & kill 0; exit 5";
    const { status, stdout, report } = await guest.boot(["--quiet", "--", "sh", "-c", script], { stdin: lines });
    const { createHash } = await import("node:crypto");
    const md5 = createHash("md5").update(lines).digest("hex");
    assert.deepEqual([status, report?.outcome], [143, "poweroff"]);
    assert.deepEqual([stdout.replace(/ +/g, " ")], [`${md5} -\n 29999 ${String(lines.length)}\ndone\n`]);
  });

  it("a flood of output arrives complete and in order; status 255", async () => {
    const { status, stdout } = await guest.boot(["--quiet", "--", "sh", "-c", "seq 1 150000; exit 255"]);
    assert.equal(status, 255);
    assert.equal(stdout, Array.from({ length: 150_000 }, (_, i) => `${String(i + 1)}\n`).join(""));
  });

  it("the kernel's log is on the console unless --quiet is given; the end of init's command by a signal", async () => {
    const { status, stdout, report } = await guest.boot(["--", "sh", "-c", "kill -9 $$"]);
    assert.deepEqual([status, report?.outcome, report?.exit_code], [137, "poweroff", 137]);
    assert.match(stdout, /Linux version 6\./);
    assert.match(stdout, /Run \/init as init process/);
  });

  it("SIGTERM, SIGINT and SIGHUP end the VM cleanly", async () => {
    const boot = `$VMLET boot --accel kvm --quiet --memory 64 --kernel ${guest.files.vmlinux} --initrd ${guest.files.initramfs}`;
    // A shell's background jobs ignore SIGINT, and what is started by the shell's line goes on ignoring it.
    const names = jailMode === undefined ? (["INT", "HUP"] as const) : (["HUP"] as const);
    // One that has begun, one at its start, and one while the kernel boots.
    const script = `rm -f /tmp/ready; mkfifo /tmp/ready
      ${boot} -- sh -c 'echo ready; sleep 100' </dev/null >/tmp/ready & pid=$!
      read line </tmp/ready; kill -TERM $pid; wait $pid; echo "$line $?"; rm /tmp/ready
      for name in ${names.join(" ")}; do
        ${boot} --control /tmp/control -- sleep 100 </dev/null & pid=$!
        until test -e /tmp/control; do sleep 0.1; done; kill -$name $pid; wait $pid; echo "$name $?"
        test -e /tmp/control && echo left
      done
      ls /tmp | grep vmlet; true`;
    const { stdout } = await guest.shell(script);
    const ends = { INT: 130, HUP: 129 };
    assert.equal(stdout, ["ready 143", ...names.map((name) => `${name} ${String(ends[name])}`), ""].join("\n"));
  });
});
