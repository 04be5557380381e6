// Needs: gcc, perl and libseccomp2. linux.seccomp of config.json as a filter of this host's kernel, under which programs run.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { compileSeccomp, type SeccompConfig } from "../../vmm/oci/seccomp/compile.js";

const SIGSYS = "SIGSYS";

describe("oci: seccomp", function () {
  this.timeout(30_000);
  let folder = "";
  let program = "";

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    program = join(folder, "with-filter");
    execFileSync("gcc", ["-O1", "-Wall", "-Werror", "-o", program, resolve("test/programs/with-filter.c")]);
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });

  function run(config: SeccompConfig, code: string): { status: number | null; signal: string | null; stdout: string } {
    const file = join(folder, "filter");
    writeFileSync(file, compileSeccomp(config).program);
    const { status, signal, stdout } = spawnSync(program, [file, "perl", "-e", code], {
      encoding: "utf8",
      timeout: 20_000,
    });
    return { status, signal, stdout: stdout.trim() };
  }
  const allowBut = (...syscalls: NonNullable<SeccompConfig["syscalls"]>): SeccompConfig => ({
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
    syscalls,
  });

  it("a call that is refused gets its errno, the others go on; one that kills ends the program", () => {
    const refuse = { names: ["mkdir", "mkdirat", "no_such_call"], action: "SCMP_ACT_ERRNO" };
    const mkdir = 'mkdir("/tmp/x/y/z") or print $!+0';
    assert.deepEqual(run(allowBut(refuse), mkdir), { status: 0, signal: null, stdout: "1" });
    assert.equal(run(allowBut({ ...refuse, errnoRet: 42 }), mkdir).stdout, "42");
    assert.equal(run(allowBut(), mkdir).stdout, "2");
    assert.deepEqual(compileSeccomp(allowBut(refuse)).unknown, ["no_such_call"]);
    const kill = { names: ["sethostname"], action: "SCMP_ACT_KILL_PROCESS" };
    assert.equal(run(allowBut(kill), 'my $name = "x"; syscall(170, $name, 1)').signal, SIGSYS);
  });

  it("conditions on arguments: all of one rule must hold; several on one argument are alternatives", () => {
    const call = "print syscall(135, VALUE), ' ', $!+0";
    const equals = (value: number) => ({ index: 0, value, op: "SCMP_CMP_EQ" });
    const either = allowBut({
      names: ["personality"],
      action: "SCMP_ACT_ERRNO",
      errnoRet: 7,
      args: [equals(8), equals(9)],
    });
    for (const [value, isRefused] of [
      [8, true],
      [9, true],
      [0xffff_ffff, false],
    ] as const) {
      const { stdout } = run(either, call.replace("VALUE", String(value)));
      assert.equal(stdout.endsWith(" 7"), isRefused, `${String(value)}: ${stdout}`);
    }
    const masked = allowBut({
      names: ["personality"],
      action: "SCMP_ACT_ERRNO",
      errnoRet: 7,
      args: [{ index: 0, value: 0xf0, valueTwo: 0x10, op: "SCMP_CMP_MASKED_EQ" }],
    });
    assert.match(run(masked, call.replace("VALUE", "0x1f")).stdout, / 7$/);
  });

  it("calls that the guest's kernel does not have fail as there, and cost a filter nothing", () => {
    const refuse = { names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" };
    const all = allowBut(refuse);
    const one = { ...all, architectures: ["SCMP_ARCH_X86_64"] };
    assert.equal(compileSeccomp(all).program.length, compileSeccomp(one).program.length);
    const x32 = "print syscall(0x40000000 + 39), ' ', $!+0";
    assert.equal(run({ ...all, architectures: [...(all.architectures ?? []), "SCMP_ARCH_X32"] }, x32).stdout, "-1 38");
    assert.equal(run(one, x32).signal, SIGSYS);
  });

  it("what is refused by default is refused, and only what a rule allows goes on", () => {
    const all = run(
      {
        defaultAction: "SCMP_ACT_ERRNO",
        defaultErrnoRet: 38,
        syscalls: [{ names: ["exit_group"], action: "SCMP_ACT_ALLOW" }],
      },
      "print 1",
    );
    // Not even the program's start is allowed.
    assert.deepEqual([all.status, all.stdout], [121, ""]);
  });

  it("what is none is refused, with the place and the value", () => {
    const refused = (config: unknown, message: RegExp): void => {
      assert.throws(() => compileSeccomp(config as SeccompConfig), message);
    };
    const rule = { names: ["mkdir"], action: "SCMP_ACT_ERRNO" };
    refused({ defaultAction: "SCMP_ACT_MAYBE" }, /defaultAction: SCMP_ACT_MAYBE is none of/);
    refused({ defaultAction: "toString" }, /defaultAction: toString is none of/);
    refused(allowBut({ names: ["mkdir"], action: "SCMP_ACT_NOTIFY" }), /SCMP_ACT_NOTIFY asks a process of this host/);
    refused(allowBut({ ...rule, errnoRet: 70_000 }), /errnoRet 70000 is not from 0 to 65535/);
    refused(allowBut({ ...rule, args: [{ index: 6, value: 0, op: "SCMP_CMP_EQ" }] }), /args\[0\]\.index: 6 is not/);
    refused(allowBut({ ...rule, args: [{ index: 0, value: 0, op: "EQ" }] }), /args\[0\]\.op: EQ is none of/);
    refused(allowBut({ ...rule, args: [{ index: 0, value: -1, op: "SCMP_CMP_EQ" }] }), /value: -1 is not from 0/);
    refused(allowBut({ ...rule, args: [{ index: 0, value: 0.5, op: "SCMP_CMP_EQ" }] }), /0\.5 is no whole number/);
    refused({ defaultAction: "SCMP_ACT_ALLOW", architectures: ["x86"] }, /architectures: x86 is no architecture/);
    refused({}, /defaultAction: it is missing/);
    for (const [syscalls, message] of [
      [5, /syscalls: no list/],
      [[null], /syscalls\[0\]\.names/],
      [[{ names: [1], action: "SCMP_ACT_ALLOW" }], /syscalls\[0\]\.names/],
      [[{ names: ["mkdir"] }], /syscalls\[0\]\.action/],
      [[{ ...rule, args: [null] }], /syscalls\[0\]\.args/],
      [[{ ...rule, args: [{ index: 0, value: "1", op: "SCMP_CMP_EQ" }] }], /value: 1 is no number/],
    ] as const) {
      refused({ defaultAction: "SCMP_ACT_ALLOW", syscalls }, message);
    }
    refused({ defaultAction: "SCMP_ACT_ALLOW", flags: ["LOG"] }, /flags: LOG is none of/);
  });
});
