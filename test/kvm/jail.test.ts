// Needs: a /dev/kvm of any kind, root, and `make build`. The jail from inside, by an attacker who owns the monitor's process
// (test/programs/attack.cjs): what is refused, by which call and on which thread; the same without a jail, where it goes through.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { MetricsLine } from "../../vmm/cli/metrics.js";
import type { Report } from "../../vmm/cli/report.js";
import { request } from "../../vmm/sdk/control-client.js";
import type { Agreement, ControlRequest } from "../../vmm/sdk/control.js";
import { inspectSnapshot } from "../../vmm/snapshot/inspect.js";
import { sha256 } from "../../vmm/sys/sha256.js";
import { attackEnvironment, expectedOn, TRIES } from "../helpers/jail-tries.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { withPrivateDev } from "../helpers/private-dev.js";
import { bootWords, PROGRAM, run, start, type Ended } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

/** What the main thread may do. */
const OF_MAIN: Readonly<Record<string, string>> = {
  "a descriptor is made": "eventfd2",
  "a timer is made": "timer_create",
  "a file that is open is written": "pwrite64",
  "a file that is open is read": "pread64",
  "an interrupt is wired": "ioctl",
  "a handler of signals is set": "rt_sigaction",
};

const EXIT_JAIL = 148;

describe("kvm: jail", function () {
  this.timeout(120_000);
  let folder = "";
  let kernel: MiniKernel;
  /** Its vCPU gets a thread of its own. */
  let longKernel: MiniKernel;
  const names = Object.keys(TRIES);

  before(function () {
    const reason = process.getuid?.() === 0 ? whyNoKvm() : "no root, whose rights an attacker would have";
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-jail-"));
    kernel = miniKernel(asm.print("up\n"), asm.spin());
    longKernel = miniKernel(asm.milestone(123), asm.spin());
  });

  after(() => {
    if (folder === "") return;
    kernel.remove();
    longKernel.remove();
    rmSync(folder, { recursive: true });
  });

  async function attack(mode: string, names: readonly string[], thread = "main"): Promise<Ended> {
    const victim = start(["sleep", "1000"]);
    const file = join(folder, "file");
    writeFileSync(file, "");
    // Of a try that has failed.
    for (const made of ["file.folder", "file.link"]) rmSync(join(folder, made), { recursive: true, force: true });
    const env = { ...attackEnvironment(names, victim.pid, file), VMLET_THREAD: thread };
    const { path } = thread === "vcpu" ? longKernel : kernel;
    const ended = await run(bootWords(path, "--quiet", "--jail", mode), { env }, 100_000);
    victim.child.kill("SIGKILL");
    await victim.ended;
    return ended;
  }

  it("without a jail, all of it goes through: these tries can fail", async () => {
    const { status, stdout, stderr } = await attack("off", names);
    assert.deepEqual(
      stdout.trim().split("\n"),
      names.map((name) => `${name}: reached`),
      stderr,
    );
    assert.equal(status, 0);
    for (const made of ["file.folder", "file.link"]) rmSync(join(folder, made), { recursive: true });
  });

  const refused = (call: string, thread = "main"): Ended => ({
    status: EXIT_JAIL,
    stdout: "",
    stderr: `vmlet: the jail has ended this VM: system call ${call}, thread ${thread}\n`,
  });
  const answered = (name: string, answer: string): Ended => ({ status: 0, stdout: `${name}: ${answer}\n`, stderr: "" });

  for (const name of names) {
    const { call, thread, on, always } = TRIES[name] ?? { call: "" };
    it(`${name}: ${call} is refused`, async () => {
      const strict = await attack("strict", [name]);
      assert.deepEqual(strict, always === undefined ? refused(call, thread) : answered(name, always));
      if (on !== undefined) {
        const expected = expectedOn(name);
        const outcome =
          "answer" in expected ? answered(name, expected.answer) : refused(expected.call, expected.thread);
        assert.deepEqual(await attack("on", [name]), outcome);
      }
      for (const made of ["file.new", "file.folder", "file.link"]) assert.ok(!existsSync(join(folder, made)), made);
    });
  }

  it("a vCPU's thread makes the calls that a vCPU needs, and not those of the main thread, which may make them", async () => {
    const all = [...Object.keys(OF_MAIN), "a vCPU is run"];
    const reached = all.map((name) => `${name}: reached`).join("\n");
    for (const [mode, thread] of [
      ["off", "vcpu"],
      ["on", "main"],
      ["strict", "main"],
    ] as const) {
      const { status, stdout, stderr } = await attack(mode, all, thread);
      assert.deepEqual([stdout.trim(), status, stderr], [reached, 0, ""], `${mode} ${thread}`);
    }
    // It may run vCPUs, and is refused the line that tells so.
    for (const [name, call] of Object.entries({ ...OF_MAIN, "a vCPU is run": "write" }))
      assert.deepEqual(await attack("strict", [name], "vcpu"), refused(call, "vcpu"), name);
  });

  it("a process that is sealed goes on with what it has open: output, metrics, a report, threads that begin later", async () => {
    const [metrics, report] = [join(folder, "metrics"), join(folder, "report")];
    const guest = miniKernel(asm.print("up\n"), asm.milestone(123), asm.spin());
    try {
      for (const mode of ["on", "strict"]) {
        const words = bootWords(
          guest.path,
          "--quiet",
          "--jail",
          mode,
          "--cpus",
          "2",
          "--metrics",
          metrics,
          "--report",
          report,
        );
        const vm = start(words, {}, 100_000);
        await vm.until("up");
        // Until a thread of its own runs each vCPU, and two lines of metrics are there.
        while (readFileSync(metrics, "utf8").split("\n").length < 5 && vm.child.exitCode === null) await sleep(200);
        const kinds = new Map<string, number>();
        for (const thread of readdirSync(`/proc/${String(vm.pid)}/task`)) {
          const name = readFileSync(`/proc/${String(vm.pid)}/task/${thread}/comm`, "latin1").trim();
          kinds.set(name, (kinds.get(name) ?? 0) + 1);
          const state = readFileSync(`/proc/${String(vm.pid)}/task/${thread}/status`, "latin1");
          for (const [field, value] of [
            ["NoNewPrivs", "1"],
            ["Seccomp", "2"],
            ["CapPrm", "0"],
            ["CapEff", "0"],
            ["CapBnd", "0"],
          ] as const) {
            const found = new RegExp(`^${field}:\\s*(\\w+)$`, "m").exec(state)?.[1] ?? "";
            assert.equal(Number(`0x${found}`), Number(value), `${mode}: ${field} of thread ${thread}`);
          }
        }
        assert.deepEqual([kinds.get("vcpu"), kinds.get("pool")], [2, 2], mode);
        vm.child.kill("SIGTERM");
        const { status, stderr } = await vm.ended;
        assert.deepEqual([status, stderr], [143, ""], mode);
        assert.equal((JSON.parse(readFileSync(report, "utf8")) as Report).exit_code, 143);
        const last = readFileSync(metrics, "utf8").trim().split("\n").at(-1) ?? "";
        const line = JSON.parse(last) as MetricsLine;
        assert.ok(line.state === "ended" && line.memory_resident_bytes > 2 ** 20 && line.lost_lines === 0, last);
      }
    } finally {
      guest.remove();
    }
  });

  const NAMESPACES = ["mnt", "ipc", "uts", "net", "cgroup"];
  const namespaceOf = (task: string, kind: string): string => readlinkSync(`/proc/${task}/ns/${kind}`);

  /** All threads, those that have begun later included, are in namespaces of their own and have an empty root. */
  function assertLeft(pid: number, kinds: readonly string[], what: string): void {
    const process = `/proc/${String(pid)}`;
    assert.deepEqual(readdirSync(`${process}/root/`), [], what);
    const mounts = readFileSync(`${process}/mountinfo`, "latin1").trim().split("\n");
    assert.ok(mounts.length === 1 && mounts[0]?.includes(" / ro,nosuid,nodev,noexec"), mounts.join());
    for (const thread of readdirSync(`${process}/task`)) {
      const task = `${String(pid)}/task/${thread}`;
      assert.equal(readlinkSync(`/proc/${task}/cwd`), "/");
      for (const kind of kinds) {
        const own = namespaceOf(task, kind);
        assert.notEqual(own, namespaceOf("self", kind), `${what}: ${kind}`);
        assert.equal(own, namespaceOf(String(pid), kind), `${what}: ${kind} of thread ${thread}`);
      }
    }
    const interfaces = readFileSync(`${process}/net/dev`, "latin1").trim().split("\n").slice(2);
    assert.deepEqual(
      interfaces.map((line) => line.trim().split(":")[0]),
      ["lo"],
    );
  }

  it("a process that is sealed has an empty root, and no network; nothing stays when it is killed", async () => {
    const guest = miniKernel(asm.print("up\n"), asm.milestone(123), asm.spin());
    // Other programs mount what they like meanwhile.
    const emptyRoots = (): string[] =>
      readFileSync("/proc/self/mountinfo", "latin1")
        .split("\n")
        .filter((line) => line.includes(" / / ro,nosuid,nodev,noexec"));
    try {
      for (const mode of ["on", "strict"]) {
        const vm = start(bootWords(guest.path, "--quiet", "--jail", mode, "--cpus", "2"), {}, 100_000);
        await vm.until("up");
        // A thread of its own for each vCPU.
        await sleep(1000);
        assertLeft(vm.pid, NAMESPACES, mode);
        vm.child.kill("SIGKILL");
        assert.equal((await vm.ended).status, 137);
        assert.deepEqual(emptyRoots(), []);
      }
    } finally {
      guest.remove();
    }
  });

  /** A user who may open a /dev/kvm of their own. */
  function asUser(words: readonly string[]): readonly string[] {
    const user = ["--reuid", "34567", "--regid", "34567", "--clear-groups"];
    const command = ["setpriv", ...user, "--", ...words].map((word) => `'${word}'`).join(" ");
    return withPrivateDev("mknod -m 666 kvm c 10 232", command);
  }

  it("the same for a user, where the host has user namespaces for users", async function () {
    if (spawnSync("setpriv", ["--reuid", "34567", "unshare", "-U", "true"]).status !== 0) skip(this, "it has none");
    const guest = miniKernel(asm.print("up\n"), asm.spin());
    chmodSync(dirname(guest.path), 0o755);
    try {
      const vm = start(asUser(bootWords(guest.path, "--quiet", "--jail", "on")), {}, 100_000);
      await vm.until("up");
      assertLeft(vm.pid, ["user", ...NAMESPACES], "as a user");
      assert.match(readFileSync(`/proc/${String(vm.pid)}/uid_map`, "latin1"), /^ *34567 +34567 +1\n$/);
      vm.child.kill("SIGTERM");
      assert.deepEqual(await vm.ended, { status: 143, stdout: "up\n", stderr: "" });
    } finally {
      guest.remove();
    }
  });

  it("where there are none, a line says so, and the rest of the jail stands", async () => {
    const guest = miniKernel(asm.print("up\n"), asm.powerOff(7), asm.haltForEver());
    // In a user namespace of its own that allows no others, and without the right to make the other kinds.
    const forbid = 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin "$@"';
    const words = bootWords(guest.path, "--quiet", "--jail", "on");
    const { status, stdout, stderr } = await run(["unshare", "-U", "-r", "sh", "-c", forbid, "sh", ...words]);
    assert.deepEqual([status, stdout], [7, "up\n"]);
    assert.equal(stderr, "vmlet: the jail goes on without namespaces: No space left on device\n");
    guest.remove();
  });

  it("a guest's own status is the exit code", async () => {
    const guest = miniKernel(asm.print("up\n"), asm.powerOff(7), asm.haltForEver());
    for (const mode of ["on", "strict"]) {
      const { status, stdout, stderr } = await run(bootWords(guest.path, "--quiet", "--jail", mode), {}, 100_000);
      assert.deepEqual([status, stdout, stderr], [7, "up\n", ""]);
    }
    guest.remove();
  });

  it("--control: what is asked is done, snapshots by files that are sent; the sockets are gone after any end", async () => {
    const control = join(folder, "control");
    const ask = (line: object): Promise<unknown> => request(control, line as ControlRequest);
    for (const mode of ["on", "strict"]) {
      for (const signal of ["SIGTERM", "SIGKILL"] as const) {
        const vm = start(bootWords(kernel.path, "--quiet", "--jail", mode, "--control", control), {}, 100_000);
        await vm.until("up");
        assert.deepEqual(await ask({ state: true }), { ok: true, state: "running" });
        await ask({ pause: true });
        const saved = join(folder, "saved");
        const made = (await ask({ snapshot: { folder: saved } })) as Agreement;
        const { id, kernel: booted } = inspectSnapshot(saved);
        assert.deepEqual([id, booted.sha256], [made.id, sha256(readFileSync(kernel.path))]);
        await ask({ resume: true });
        await assert.rejects(ask({ snapshot: { folder: saved, base: saved } }), /is saved whole/);
        await assert.rejects(ask({ migrate: { to: `unix:${join(folder, "other")}` } }), /in the jail cannot move/);
        await assert.rejects(
          ask({ snapshot: { folder: join(folder, "none"), id: "0".repeat(32) } }),
          /have not been sent/,
        );
        assert.equal((await run([PROGRAM, "snapshot", "inspect", "--verify", saved])).status, 0);
        rmSync(saved, { recursive: true });
        vm.child.kill(signal);
        const { status, stderr } = await vm.ended;
        assert.deepEqual([status, stderr], [signal === "SIGTERM" ? 143 : 137, ""], mode);
        while (existsSync(control) || existsSync(`${control}.files`)) {
          assert.equal(signal, "SIGKILL", "gone when it has ended");
          await sleep(10);
        }
      }
    }
  });

  it("a socket device listens, and its socket file goes at the end; a path that is too long with all its folders is said before", async () => {
    const socket = join(folder, "vsock");
    for (const mode of ["on", "strict"]) {
      const vm = start(bootWords(kernel.path, "--quiet", "--jail", mode, "--vsock", `cid=3,path=${socket}`));
      await vm.until("up");
      // A guest without a driver takes nobody.
      const answer = connect(socket).end("CONNECT 1\n").setEncoding("latin1");
      assert.deepEqual(await answer.toArray(), []);
      vm.child.kill("SIGTERM");
      const { status, stderr } = await vm.ended;
      assert.deepEqual([status, stderr, existsSync(socket)], [143, "", false], mode);
    }
    const words = bootWords(kernel.path, "--jail", "on", "--vsock", `cid=3,path=${"x".repeat(80)}`);
    const { status, stderr } = await run(words, { cwd: folder });
    assert.equal(status, 64);
    assert.match(
      stderr,
      /^vmlet: vmlet boot: --vsock path=x+: 1\d\d bytes with all its folders; with --jail on the limit is 96\n$/,
    );
  });
});
