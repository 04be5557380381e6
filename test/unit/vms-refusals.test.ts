// Needs: a built program for some, skipped without. What commands about VMs refuse: one line each, before anything is done.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { attach } from "../../vmm/cli/vms/attach.js";
import { cp } from "../../vmm/cli/vms/cp.js";
import { exec } from "../../vmm/cli/vms/exec.js";
import { images, rmi } from "../../vmm/cli/vms/images.js";
import { inspect } from "../../vmm/cli/vms/inspect.js";
import { kill, rm, stop, wait } from "../../vmm/cli/vms/lifecycle.js";
import { logs } from "../../vmm/cli/vms/logs.js";
import { ps } from "../../vmm/cli/vms/ps.js";
import { run } from "../../vmm/cli/vms/run.js";
import { exitCodeOfError } from "../../vmm/cli/exit-code.js";
import { ownIdentity } from "../../vmm/sdk/process-identity.js";
import { StateFolder } from "../../vmm/sdk/state-folder.js";
import type { VmRecord } from "../../vmm/sdk/vm-record.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const COMMANDS = { attach, cp, exec, images, rmi, inspect, kill, rm, stop, wait, logs, ps, run };
const USAGE = 64;
const CONFIG = 65;
const HOST = 69;
const LIMIT_MS = 60_000;

type Case = readonly [command: keyof typeof COMMANDS, words: readonly string[], exitCode: number, message: RegExp];

const NO_VM = /^There is no VM "nobody"; vmlet ps --all lists them$/;
/** "ended" is a VM that has ended, "alone" one whose process answers nobody. */
const CASES: readonly Case[] = [
  ...(["inspect", "kill", "rm", "stop", "wait", "exec"] as const).map((name): Case => [
    name,
    [],
    USAGE,
    new RegExp(`^vmlet ${name}: no VM is given$`),
  ]),
  ...(["logs", "attach"] as const).flatMap((name): Case[] => [
    [name, [], USAGE, new RegExp(`^vmlet ${name}: one VM is to be given$`)],
    [name, ["ended", "alone"], USAGE, new RegExp(`^vmlet ${name}: one VM is to be given$`)],
    [name, ["nobody"], CONFIG, NO_VM],
    [name, [""], CONFIG, /^There is no VM ""/],
  ]),
  ...Object.keys(COMMANDS).map((name): Case => [
    name as keyof typeof COMMANDS,
    ["--bogus"],
    USAGE,
    /^vmlet \w+: Unknown option '--bogus'/,
  ]),
  ["inspect", ["ended", "nobody"], CONFIG, NO_VM],
  ["ps", ["nobody"], USAGE, /^vmlet ps: Unexpected argument 'nobody'$/],
  ["images", ["nobody"], USAGE, /^vmlet images: Unexpected argument 'nobody'$/],
  ["rmi", [], USAGE, /^vmlet rmi: no IMAGE is given$/],

  ["exec", ["alone"], USAGE, /^vmlet exec: no COMMAND is given$/],
  ["exec", ["nobody", "true"], CONFIG, NO_VM],
  ["exec", ["ended", "true"], CONFIG, /^VM ended does not run$/],
  ["exec", ["alone", "true"], HOST, /no such|nobody|refused|cannot/i],
  ["exec", ["-e", "=x", "alone", "true"], USAGE, /^--env "=x" is not NAME=VALUE or NAME$/],
  ["exec", ["--env-file", "/none", "alone", "true"], HOST, /^--env-file \/none: cannot be read: no such file/],
  ["exec", ["-w", "here", "alone", "true"], USAGE, /--workdir "here" is not an absolute path of the VM$/],
  [
    "exec",
    ["-u", "4294967295", "alone", "true"],
    USAGE,
    /user "4294967295": users and groups have numbers from 0 to 2147483647/,
  ],
  ["exec", ["-u", "1", "-u", "2", "alone", "true"], USAGE, /--user is given twice$/],

  ["stop", ["-t", "soon", "alone"], USAGE, /--time "soon" is not a whole number of seconds$/],
  ["stop", ["-t", "1e9", "alone"], USAGE, /--time "1e9" is not a whole number of seconds$/],
  ["stop", ["-t", "99999999999999999999", "alone"], USAGE, /--time "9+" is not a whole number of seconds$/],
  [
    "kill",
    ["-s", "FOO", "alone"],
    CONFIG,
    /^FOO: not a signal; it has a name such as SIGTERM, or a number from 1 to 64$/,
  ],
  ["kill", ["-s", "0", "alone"], CONFIG, /^0: not a signal/],
  ["kill", ["-s", "65", "alone"], CONFIG, /^65: not a signal/],
  ["kill", ["-s", "", "alone"], USAGE, /--signal is given an empty value$/],
  ["logs", ["-n", "few", "ended"], USAGE, /--tail "few" is not a number of lines, or all$/],
  ["logs", ["alone"], CONFIG, /^VM alone: what it writes is not kept; vmlet run --detach keeps it$/],
  ["attach", ["ended"], CONFIG, /^VM ended has ended$/],
  ["attach", ["--detach-keys", "foo", "alone"], USAGE, /^--detach-keys "foo": "foo" is no key/],

  ["cp", [], USAGE, /^vmlet cp: a source and a target are to be given$/],
  ["cp", ["alone:/a"], USAGE, /a source and a target/],
  ["cp", ["a", "b", "alone:/c"], USAGE, /a source and a target/],
  ["cp", ["a", "b"], USAGE, /one of the two sides is VM:PATH, the other this host's$/],
  ["cp", ["alone:/a", "alone:/b"], USAGE, /one of the two sides is VM:PATH/],
  ["cp", ["-", "-"], USAGE, /one of the two sides is VM:PATH/],
  ["cp", ["alone:a", "b"], USAGE, /^vmlet cp: "a" is not an absolute path of the VM$/],
  ["cp", ["nobody:/a", "b"], CONFIG, NO_VM],
  ["cp", ["ended:/a", "b"], CONFIG, /^VM ended does not run$/],

  ["run", [], USAGE, /^vmlet run: no IMAGE is given, nor --rootfs or --disk/],
  ["run", ["--memory", "lots", "x"], USAGE, /--memory "lots" is not a whole number of MiB/],
  ["run", ["--memory", "63", "x"], CONFIG, /^memoryMib 63 is not a whole number from 64 to \d+$/],
  ["run", ["--cpus", "33", "x"], CONFIG, /^cpus 33 is not a whole number from 1 to 32$/],
  ["run", ["--rootfs", "/none", "true"], CONFIG, /^rootfs "\/none": no such folder$/],
  ["run", ["--disk", "/none", "true"], CONFIG, /^disk "\/none": no such file$/],
  ["run", ["-v", "/none:/x", "x"], CONFIG, /^volumes: 1: hostPath "\/none": no such folder or file$/],
  ["run", ["-v", "/dev/null:/x", "x"], CONFIG, /"\/dev\/null" is neither a folder nor a file$/],
  ["run", ["-v", "/tmp:x", "x"], CONFIG, /guestPath "x" is not an absolute path of the guest$/],
  ["run", ["-v", "/tmp:/", "x"], CONFIG, /guestPath "\/" is the root itself/],
  ["run", ["-v", "/tmp:/x", "--tmpfs", "/x", "x"], CONFIG, /^More than one volume or tmpfs is at "\/x"$/],
  ["run", ["--tmpfs", "/x:size=lots", "x"], CONFIG, /^tmpfs: 1: "size=lots" is not size= and a size such as/],
  ["run", ["-p", "70000:80", "x"], CONFIG, /^ports: hostPort 70000 is not a whole number from 0 to 65535$/],
  ["run", ["-p", "80:80", "--network", "none", "x"], CONFIG, /^network "none" has no ports$/],
  ["run", ["-p", "1-2000:1-2000", "x"], CONFIG, /^ports: 2000 are too many; the limit is 1024$/],
  ["run", ["-h", "a b", "x"], CONFIG, /^hostName "a b" is not 1 to 64 letters/],
  ["run", ["--name", "a/b", "x"], CONFIG, /^Name "a\/b" is not 1 to 128 letters/],
  ["run", ["-w", "here", "x"], CONFIG, /^workdir "here" is not an absolute path of the guest$/],
  ["run", ["-u", "0:2147483648", "x"], CONFIG, /^user "0:2147483648": users and groups have numbers/],
  ["run", ["-l", "=x", "x"], CONFIG, /^labels has no entry ""/],
];

describe("run: what its companions refuse", function () {
  this.timeout(LIMIT_MS);
  let folder: string;
  const NAMES = ["VMLET_STATE", "VMLET_CACHE", "TMPDIR"] as const;
  const environment = NAMES.map((name) => [name, process.env[name]] as const);

  const record = (given: Partial<VmRecord>): VmRecord => ({
    ...{ version: 1, id: "", name: "", owner: ownIdentity(), created: new Date().toISOString(), status: "running" },
    ...{ source: "busybox", command: ["true"], memoryMib: 64, cpus: 1, network: "none", ports: [], labels: {} },
    ...{ autoRemove: false, hasLog: false, hasTerminal: false, stopSignal: 15, restored: false },
    defaults: { env: [], workingDirectory: "/", user: "" },
    ...given,
  });
  const ended = record({ id: "aa00bb00cc00", name: "ended", status: "exited", exitCode: 3, hasLog: true });
  const alone = record({ id: "aa11bb11cc11", name: "alone" });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-refuse-"));
    for (const name of ["tmp", "cache"]) mkdirSync(join(folder, name), { mode: 0o700 });
    process.env["VMLET_STATE"] = join(folder, "state");
    process.env["VMLET_CACHE"] = join(folder, "cache");
    process.env["TMPDIR"] = join(folder, "tmp");
    const state = new StateFolder();
    state.add(ended);
    state.add(alone);
  });

  afterEach(() => {
    for (const [name, value] of environment) {
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
    rmSync(folder, { recursive: true, force: true });
  });

  const left = (): unknown =>
    ["state", "state/names", "state/aa00bb00cc00", "state/aa11bb11cc11", "tmp"].map((name) =>
      readdirSync(join(folder, name)).sort(),
    );

  for (const [command, words, exitCode, message] of CASES) {
    it(`${command} ${words.map((word) => JSON.stringify(word)).join(" ")}`, async () => {
      const before = left();
      const error: unknown = await COMMANDS[command](words).then(
        (result) => assert.fail(`was done, with ${String(result)}`),
        (failure: unknown) => failure,
      );
      assert.ok(error instanceof Error);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/, "one line");
      assert.equal(exitCodeOfError(error), exitCode, error.stack);
      assert.deepEqual(left(), before);
    });
  }

  describe("as a program", () => {
    before(function () {
      if (!existsSync(PROGRAM)) skip(this, "dist/vmlet.js is not built");
    });

    const vmlet = (...words: string[]) => spawnSync(PROGRAM, words, { encoding: "utf8", timeout: LIMIT_MS });

    it("says it once, on standard error, with exit code 125 of run and exec, as Docker has it", () => {
      const before = left();
      for (const [words, exitCode, message] of [
        [["run", "--memory", "63", "x"], 125, "memoryMib 63 is not a whole number"],
        // Node itself has an option of this name.
        [["run", "--env-file", "/none", "x"], 125, "--env-file /none: cannot be read"],
        [["exec", "--env-file=/none", "alone", "true"], 125, "--env-file /none: cannot be read"],
        [["exec", "ended", "true"], 125, "VM ended does not run"],
        [["stop", "nobody"], CONFIG, 'There is no VM "nobody"'],
        [["ps", "--bogus"], USAGE, "vmlet ps: Unknown option '--bogus'"],
      ] as const) {
        const { status, stdout, stderr } = vmlet(...words);
        assert.equal(status, exitCode, stderr);
        assert.equal(stdout, "");
        assert.match(stderr, /^vmlet: [^\n]+\n(vmlet: [^\n]+\n)?$/);
        assert.ok(stderr.startsWith(`vmlet: ${message}`), stderr);
      }
      assert.deepEqual(left(), before);
    });

    it("goes on with the other VMs after one that is not there", () => {
      const { status, stdout, stderr } = vmlet("rm", "nobody", "ended");
      assert.deepEqual([status, stdout], [CONFIG, "ended\n"]);
      assert.match(stderr, /^vmlet: There is no VM "nobody"[^\n]*\n$/);
    });

    it("what --json prints is JSON whose keys docs/run.md names", () => {
      const page = readFileSync("docs/run.md", "utf8");
      for (const words of [
        ["ps", "--all", "--json"],
        ["inspect", "ended", "alone"],
      ]) {
        const list = JSON.parse(vmlet(...words).stdout) as Record<string, unknown>[];
        assert.equal(list.length, 2);
        for (const key of list.flatMap((one) => Object.keys(one))) assert.ok(page.includes(`\`${key}\``), key);
      }
      assert.deepEqual(JSON.parse(vmlet("images", "--json").stdout), []);
    });
  });
});
