// Needs: root, a /dev/kvm on which guests run, and `make build`, with gcc. The jail around `vmlet run` and the process of Vm.start: by an
// attacker who owns the process, and by what is left after any end.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Vm } from "../../vmm/index.js";
import { StateFolder } from "../../vmm/sdk/state-folder.js";
import { countBoot } from "../helpers/booted.js";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { attackEnvironment, expectedOn, TRIES } from "../helpers/jail-tries.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM, run, start, type Ended } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const EXIT_JAIL = 148;
const LIMIT_MS = 240_000;
/** One of each kind: files, processes, signals, memory, sockets, rights, KVM, another thread. */
const TRIED = [
  "a file is read",
  "a file is made",
  "a control group is read",
  "a process is forked",
  "this program becomes another",
  "another process is signalled",
  "memory of another process is read",
  "a socket is made",
  "capabilities are set",
  "something is mounted",
  "a key is looked for",
  "a VM is made",
  "another thread makes a socket",
];

describe("boot: the jail around vmlet run", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  let state: StateFolder;
  const environment = { ...process.env };

  before(function () {
    const reason =
      process.getuid?.() === 0 ? (whyNoKvm() ?? whyNoBusybox()) : "no root, whose rights an attacker would have";
    if (reason !== undefined) skip(this, reason);
    if (!spawnSync("dist/vmlet-jailer", ["--version"]).stdout.toString().startsWith("Jailer"))
      skip(this, "no dist/vmlet-jailer (make build, with gcc)");
    folder = mkdtempSync(join(tmpdir(), "vmlet-run-jail-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    image = makeBusyboxImage(folder, []);
    state = new StateFolder();
  });

  after(() => {
    process.env = environment;
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  const vmlet = (...words: string[]): Promise<Ended> => run([PROGRAM, ...words], {}, LIMIT_MS);

  afterEach(() => {
    // Of a test that has failed.
    if (folder !== "") for (const { name } of state.list()) spawnSync(PROGRAM, ["rm", "--force", name]);
  });

  function assertNothingLeft(): void {
    assert.deepEqual(state.list(), []);
    assert.deepEqual(readdirSync(join(folder, "state")), ["names"]);
    assert.deepEqual(readdirSync(join(folder, "state", "names")), []);
  }

  async function attack(names: readonly string[], ...options: string[]): Promise<Ended> {
    const victim = start(["sleep", "1000"], {}, LIMIT_MS);
    const file = join(folder, "file");
    writeFileSync(file, "");
    const env = attackEnvironment(names, victim.pid, file);
    const words = ["run", "--quiet", ...options, "-i", image, "sh", "-c", "echo up; cat"];
    const ended = await run([PROGRAM, ...words], { env, stdio: ["pipe", "pipe", "pipe"] }, LIMIT_MS);
    victim.child.kill("SIGKILL");
    await victim.ended;
    return ended;
  }

  it("with the jail off, all of it goes through: these tries can fail", async () => {
    // The third of its kind goes on behind the command's exec: the same process, from its beginning.
    for (let at = 0; at < 2; at++) assert.equal((await vmlet("run", "--quiet", image, "true")).status, 0);
    countBoot();
    const { stdout, stderr } = await attack(TRIED, "--jail", "off");
    assert.deepEqual(
      stdout.trim().split("\n"),
      TRIED.map((name) => `${name}: reached`),
      stderr,
    );
    // Whoever ends it there leaves what it had.
    assert.equal((await vmlet("ps")).status, 0);
  });

  for (const name of TRIED) {
    it(`${name}: ${TRIES[name]?.call ?? ""} is refused, and nothing stays`, async () => {
      const { status, stdout, stderr } = await attack([name]);
      const expected = expectedOn(name);
      if ("answer" in expected) {
        assert.deepEqual([status, stdout], [0, `${name}: ${expected.answer}\n`], stderr);
      } else {
        const line = `vmlet: the jail has ended this VM: system call ${expected.call}, thread ${expected.thread}\n`;
        assert.deepEqual([status, stdout, stderr], [EXIT_JAIL, "", line]);
      }
      while (existsSync(join(folder, "state")) && readdirSync(join(folder, "state")).length > 1) await sleep(10);
      assertNothingLeft();
    });
  }

  it("every way in which a program begins is in the jail: booted, kept, held, detached, at a terminal, from a program", async () => {
    const fields = (pid: number): string[] => {
      const status = readFileSync(`/proc/${String(pid)}/status`, "latin1");
      return ["Seccomp", "NoNewPrivs", "CapEff", "CapBnd"].map(
        (name) => new RegExp(`^${name}:\\s*(\\w+)$`, "m").exec(status)?.[1] ?? "",
      );
    };
    const assertJailed = (pid: number, what: string): void => {
      assert.deepEqual(fields(pid), ["2", "1", "0000000000000000", "0000000000000000"], what);
      assert.deepEqual(readdirSync(`/proc/${String(pid)}/root/`), [], what);
      assert.notEqual(readlinkSync(`/proc/${String(pid)}/ns/net`), readlinkSync("/proc/self/ns/net"), what);
    };
    for (const what of ["the first time", "kept", "held"]) {
      const vm = start(
        [PROGRAM, "run", "--quiet", "-i", image, "sh", "-c", "echo in; cat; echo out"],
        {
          stdio: ["pipe", "pipe", "pipe"],
        },
        LIMIT_MS,
      );
      await vm.until("in\n");
      assertJailed(vm.pid, what);
      vm.child.stdin?.end("through\n");
      assert.deepEqual(await vm.ended, { status: 0, stdout: "in\nthrough\nout\n", stderr: "" });
      assertNothingLeft();
    }
    for (const options of [["-d"], ["-d", "-t"], ["-d", "--jail", "strict"]]) {
      const { status, stderr } = await vmlet("run", ...options, "--name", "apart", image, "sleep", "1000");
      assert.equal(status, 0, stderr);
      assertJailed(state.find("apart").owner.pid, options.join(" "));
      assert.equal((await vmlet("exec", "apart", "echo", "in it")).stdout, "in it\n");
      assert.equal((await vmlet("kill", "apart")).status, 0);
      while (state.find("apart").status !== "exited") await sleep(10);
      const record = state.find("apart");
      assert.deepEqual([record.status, record.exitCode], ["exited", 137]);
      assert.ok(Date.parse(record.finished ?? "") > Date.parse(record.created), record.finished);
      assert.deepEqual(readdirSync(state.folderOf(record.id).path).sort(), ["log", "vm.json"]);
      await vmlet("rm", "apart");
      assertNothingLeft();
    }
    await using vm = await Vm.start({ image });
    assertJailed(state.find(vm.name).owner.pid, "Vm.start");
    await using off = await Vm.start({ image, jail: "off" });
    assert.equal(fields(state.find(off.name).owner.pid)[0], "0");
  });

  it("one that is killed leaves nothing, and its end is in the record of one that is kept", async () => {
    const vm = start([PROGRAM, "run", "--quiet", image, "sh", "-c", "echo up; sleep 1000"], {}, LIMIT_MS);
    await vm.until("up\n");
    vm.child.kill("SIGKILL");
    await vm.ended;
    // Without any other command.
    while (readdirSync(join(folder, "state")).length > 1) await sleep(10);
    assert.deepEqual(readdirSync(join(folder, "state", "names")), []);
    await vmlet("run", "-d", "--name", "kept", image, "sleep", "1000");
    const { id, owner } = state.find("kept");
    process.kill(owner.pid, "SIGKILL");
    const path = state.folderOf(id).recordFile;
    const record = (): { status: string; exitCode?: number; error?: string } =>
      JSON.parse(readFileSync(path, "utf8")) as { status: string; exitCode?: number; error?: string };
    while (record().status !== "exited") await sleep(10);
    assert.deepEqual([record().exitCode, record().error], [137, "the process in which it lived was killed"]);
    await vmlet("rm", "kept");
    assertNothingLeft();
  });

  it("a log that is full turns, and every byte that is kept is as it was written", async () => {
    const line = "0123456789".repeat(100);
    const count = 20_000;
    const script = `yes ${line} | head -n ${String(count)}; echo end; sleep 1000`;
    assert.equal((await vmlet("run", "-d", "--name", "talks", image, "sh", "-c", script)).status, 0);
    const { log } = state.folderOf(state.find("talks").id);
    while (!existsSync(`${log}.1`) || !readFileSync(log, "latin1").endsWith("end\n")) await sleep(50);
    await vmlet("kill", "talks");
    const lines = (await vmlet("logs", "talks")).stdout.split("\n");
    assert.deepEqual([lines.length, ...new Set(lines)], [count + 2, line, "end", ""]);
    await vmlet("rm", "talks");
    assertNothingLeft();
  });
});
