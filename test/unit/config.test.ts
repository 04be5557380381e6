// Needs: nothing. What users give us, and what they hear.
import assert from "node:assert/strict";
import { parseBoot, parseDoctor, parseLab, parseMemory } from "../../vmm/cli/arguments.js";
import { EXIT_CONFIG, EXIT_GUEST, EXIT_HOST, EXIT_INTERNAL, EXIT_USAGE } from "../../vmm/host/exit-codes.js";
import { exitCodeOf, exitCodeOfError, hasMissedCommand } from "../../vmm/cli/exit-code.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import type { VmConfig } from "../../vmm/config/types.js";
import type { VmExit } from "../../vmm/machine/vm-exit.js";
import * as errors from "../../vmm/errors.js";

describe("config", () => {
  it("fills in the defaults", () => {
    const config = resolveConfig({ kernel: "k" });
    assert.deepEqual(
      [config.memoryMib, config.cpus, config.nested, config.protocol, config.initrd],
      [128, 1, false, "auto", undefined],
    );
    assert.match(config.cmdline, /^console=ttyS0 /);
    assert.equal(resolveConfig({ kernel: "k", bareCmdline: true, cmdline: "a b" }).cmdline, "a b");
    assert.match(resolveConfig({ kernel: "k", quiet: true, cmdline: "x" }).cmdline, /quiet loglevel=1 x$/);
  });

  it("no refusal has a character that a terminal would obey, whatever a word has", () => {
    const odd = "a\x7f\x9b\x1b\u202e\n";
    const long = odd.repeat(30);
    const wrong: readonly unknown[] = [
      ...[long, odd].map((tag) => ({
        shares: [
          { path: "s", tag },
          { path: "t", tag },
        ],
      })),
      {
        disks: [
          { path: "d", id: odd },
          { path: "e", id: odd },
        ],
      },
      { nets: [{ tap: odd }, { tap: odd }] },
      ...[{ kernel: `${odd}\0` }, { [odd]: 1 }, { protocol: odd }],
      ...[{ vfio: [odd] }, { vsock: { cid: odd } }, { console: odd }, { memoryMib: odd }],
    ];
    for (const part of wrong) {
      assert.throws(
        () => resolveConfig({ kernel: "k", ...(part as object) }),
        (error) => {
          assert.ok(error instanceof errors.ConfigError);
          for (const problem of error.problems) assert.doesNotMatch(problem, /[\p{Cc}\p{Cf}]/u);
          return true;
        },
        JSON.stringify(part).slice(0, 80),
      );
    }
  });

  it("on a PCI bus devices need no lines; without one, nobody looks for it", () => {
    const disks = Array.from({ length: 12 }, (_, index) => ({ path: `disk-${String(index)}` }));
    assert.throws(() => resolveConfig({ kernel: "k", disks, cmdline: "noapic" }), /interrupt lines for 9/);
    assert.equal(resolveConfig({ kernel: "k", disks, cmdline: "noapic", pci: true }).pci, true);
    assert.deepEqual(
      [{}, { pci: true }, { bareCmdline: true }].map((config) =>
        resolveConfig({ kernel: "k", ...config })
          .cmdline.split(" ")
          .includes("pci=off"),
      ),
      [true, false, false],
    );
  });

  it("reports all problems at once, each with value and limit", () => {
    const config = { kernel: "", memoryMib: 3, cpus: 0, protocol: "efi", colour: 1 } as unknown as VmConfig;
    assert.throws(
      () => resolveConfig(config),
      (error) => {
        assert.ok(error instanceof errors.ConfigError);
        assert.deepEqual(error.problems, [
          'Unknown option "colour"; known are kernel, initrd, cmdline, bareCmdline, memoryMib, cpus, smt, hugePages, nested, pci, cpuTemplate, protocol, quiet, disks, nets, mmds, vsock, console, rng, rngRateLimiter, balloon, shares, vfio, keyboard, commandChannel',
          'kernel "" is not a path',
          "Memory (memoryMib) 3 is not a whole number from 16 to 1048576 MiB",
          "Number of vCPUs (cpus) 0 is not a whole number from 1 to 32",
          'Boot protocol (protocol) "efi" is not one of auto, linux64, pvh',
        ]);
        return true;
      },
    );
  });
});

describe("arguments", () => {
  it("reads sizes with and without units", () => {
    assert.deepEqual(["64", "512M", "2G", "1.5GiB", "256MB", "1g"].map(parseMemory), [64, 512, 2048, 1536, 256, 1024]);
    for (const text of ["", "abc", "-1", "2P", "1.0001G", "1e3"]) assert.throws(() => parseMemory(text), UsageError);
  });

  it("everything behind -- is the command, options and all", () => {
    const options = parseBoot(["-q", "--cpus", "2", "--", "ls", "--cpus", "--", "-x"]);
    assert.deepEqual(options.command, ["ls", "--cpus", "--", "-x"]);
    assert.deepEqual([options.quiet, options.cpus, options.accel], [true, 2, "auto"]);
    assert.deepEqual(parseLab(["--", "sh"]).command, ["sh"]);
    assert.equal(parseDoctor(["--json"]).json, true);
  });

  const bad: [argv: string[], message: RegExp][] = [
    [["--cpu", "2"], /Unknown option '--cpu'/],
    [["--cpus", "two"], /--cpus two: not a whole number/],
    [["--cpus"], /argument missing/],
    [["--accel", "xen"], /--accel xen: not one of auto, kvm, lab/],
    [["--protocol", "efi"], /not one of auto, linux64, pvh/],
    [["--memory", "lots"], /--memory lots: not a size/],
    [["vmlinux"], /Unexpected argument 'vmlinux'[^.]*; a COMMAND follows "--"$/],
  ];
  for (const [argv, message] of bad) {
    it(`refuses: ${argv.join(" ")}`, () => {
      assert.throws(
        () => parseBoot(argv),
        (error) => error instanceof UsageError && message.test(error.message),
      );
    });
  }
});

describe("errors", () => {
  it("every class has a code of the list, a name, and an exit code", () => {
    const table: [error: errors.VmmError, code: string, exit: number][] = [
      [new errors.ConfigError(["a", "b"]), "ERR_CONFIG", EXIT_CONFIG],
      [new errors.KernelImageError("x"), "ERR_KERNEL_IMAGE", EXIT_CONFIG],
      [new errors.DiskError("x"), "ERR_DISK", EXIT_CONFIG],
      [new errors.HostError("x"), "ERR_HOST", EXIT_HOST],
      [new errors.SystemCallError("mmap", 12, "ENOMEM"), "ERR_SYSTEM_CALL", EXIT_HOST],
      [new errors.KvmIoctlError("KVM_RUN", 14, "EFAULT"), "ERR_KVM_IOCTL", EXIT_HOST],
      [new errors.SnapshotError("x"), "ERR_SNAPSHOT", EXIT_CONFIG],
      [new errors.VmStateError("start", "closed", "is closed"), "ERR_VM_STATE", EXIT_INTERNAL],
      [new errors.GuestMemoryError("x"), "ERR_GUEST_MEMORY", EXIT_INTERNAL],
      [new errors.BusError("x"), "ERR_BUS", EXIT_INTERNAL],
      [new errors.VcpuExitError("x"), "ERR_VCPU_EXIT", EXIT_GUEST],
      [new errors.LabError("x"), "ERR_LAB", EXIT_HOST],
      [new errors.ImageError("x"), "ERR_IMAGE", EXIT_CONFIG],
      [new errors.AgentError("closed", "x"), "ERR_AGENT", EXIT_GUEST],
      [new errors.GuestRequestError("stat /x", 2, "ENOENT", "x"), "ERR_GUEST_REQUEST", EXIT_GUEST],
      [new errors.ExecError("x", { command: ["x"], exitCode: 1, signal: null }), "ERR_EXEC", EXIT_GUEST],
    ];
    assert.deepEqual(
      table.map(([, code]) => code),
      [...errors.ERROR_CODES],
    );
    for (const [error, code, exit] of table) {
      assert.equal(error.code, code);
      assert.equal(error.name, error.constructor.name);
      assert.equal(exitCodeOfError(error), exit);
    }
    assert.equal(new errors.KvmIoctlError("KVM_RUN", 14, "EFAULT").message, "KVM_RUN failed with EFAULT (14)");
    assert.equal(exitCodeOfError(new UsageError("x")), EXIT_USAGE);
    assert.equal(exitCodeOfError(new TypeError("x")), EXIT_INTERNAL);
  });

  it("outcomes have distinct exit codes; a power-off hands the guest's own on", () => {
    const codes = (["reboot", "panic", "triple-fault", "killed", "halted"] as const).map((o) => exitCodeOf(o, 5));
    assert.deepEqual(codes, [100, 101, 102, 103, 105]);
    assert.deepEqual([exitCodeOf("poweroff", 42), exitCodeOf("poweroff", undefined)], [42, 0]);
  });
});

describe("a command that nothing ran", () => {
  const exit = (change: Partial<VmExit>, commandStart?: bigint): VmExit => ({
    outcome: "poweroff",
    exitStatus: undefined,
    milestones: { firstRun: 1n, init: undefined, commandStart, commandEnd: undefined, end: 2n },
    exits: {},
    fixups: {},
    devices: {},
    registers: undefined,
    ...change,
  });

  it("is told from one that ended, or ended the guest itself", () => {
    assert.equal(hasMissedCommand(exit({})), true);
    assert.equal(hasMissedCommand(exit({}, 1n)), false);
    // vmlet's init could not get onto the root disk.
    assert.equal(hasMissedCommand(exit({ exitStatus: 126 })), false);
    assert.equal(hasMissedCommand(exit({ outcome: "panic" })), false);
  });

  it("huge pages and threads of a core want even numbers", () => {
    const problemsOf = (config: Partial<VmConfig>): readonly string[] => {
      try {
        resolveConfig({ kernel: "k", ...config });
        return [];
      } catch (error) {
        assert.ok(error instanceof errors.ConfigError);
        return error.problems;
      }
    };
    for (const hugePages of ["2M", "transparent"] as const) {
      assert.deepEqual(problemsOf({ hugePages, memoryMib: 64 }), []);
      assert.match(problemsOf({ hugePages, memoryMib: 65 }).join(), /65 is odd, and a huge page has 2 MiB/);
      assert.match(problemsOf({ hugePages, shares: [{ path: "/tmp" }] }).join(), /only with memory of ordinary pages/);
    }
    assert.deepEqual(problemsOf({ hugePages: "none", memoryMib: 65 }), []);
    for (const cpus of [1, 2, 4]) assert.deepEqual(problemsOf({ smt: true, cpus }), []);
    assert.match(problemsOf({ smt: true, cpus: 3 }).join(), /\(cpus\) 3 is odd/);
    assert.deepEqual(problemsOf({ smt: false, cpus: 3 }), []);
  });
});
