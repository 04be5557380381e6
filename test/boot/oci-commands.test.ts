// Needs: root, virtiofsd, a /dev/kvm on which guests run, a built program, busybox. The runtime's own commands: what each says at
// each moment of a container's life, and what is left of one whose commands were killed.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree } from "../helpers/busybox-image.js";
import { callRuntime, RUNTIME, RUNTIME_LIMIT_MS, whyNoContainers, type Answer } from "../helpers/oci-runtime.js";
import { skip } from "../helpers/skip.js";

/** Another run of this test may be at work on the host. */
const CGROUP = `/vmlet-test-${String(process.pid)}`;
/** Of the container. */
const TASKS = 8;

describe("oci runtime's commands", function () {
  this.timeout(RUNTIME_LIMIT_MS);
  let folder = "";
  let root = "";

  const call = (...args: readonly string[]): Answer => callRuntime(root, args);
  /** Of `create`, whose streams are the container's. */
  const create = (id: string): number | null =>
    spawnSync(RUNTIME, ["--root", root, "create", "-b", folder, "--pid-file", join(folder, "pid"), id], {
      stdio: "ignore",
      timeout: RUNTIME_LIMIT_MS,
    }).status;
  const state = (id: string): { status: string; pid: number } =>
    JSON.parse(call("state", id).stdout) as { status: string; pid: number };
  const monitors = (): string[] =>
    spawnSync("ps", ["-eo", "args"], { encoding: "utf8" })
      .stdout.split("\n")
      .filter((line) => line.includes(`monitor ${root}/`));

  before(function () {
    const why = whyNoContainers();
    if (why !== undefined) return skip(this, why);
    folder = mkdtempSync(join(tmpdir(), "vmlet-oci-"));
    root = join(folder, "state");
    const path = busyboxTree(folder);
    const process = { user: { uid: 0, gid: 0 }, args: ["sleep", "1000"], cwd: "/", env: ["PATH=/bin"] };
    const mounts = [{ destination: "/proc", type: "proc", source: "proc" }];
    const hook = { path: "/bin/sh", args: ["sh", "-c", `cat >>${folder}/hooks; echo >>${folder}/hooks`] };
    const hooks = { prestart: [hook], poststart: [hook], poststop: [hook] };
    const namespaces = ["network", "pid", "ipc", "uts", "mount", "cgroup"].map((type) => ({ type }));
    const linux = { namespaces, cgroupsPath: CGROUP, resources: { pids: { limit: TASKS } } };
    const spec = { ociVersion: "1.0.2", hostname: "box", process, root: { path }, mounts, hooks, linux };
    writeFileSync(join(folder, "config.json"), JSON.stringify(spec));
    countBoot();
  });

  after(() => {
    if (root !== "" && existsSync(root)) for (const id of readdirSync(root)) call("delete", "--force", id);
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("of a container that is not there every command says so, in the log as engines read it", () => {
    for (const command of ["state", "start", "kill", "delete", "pause", "resume", "ps", "events", "update"]) {
      const { status, stderr } = call(command, "nosuch");
      assert.deepEqual([status, /container does not exist/.test(stderr)], [1, true], command);
    }
    assert.equal(call("exec", "nosuch", "true").status, 255);
    assert.equal(call("delete", "--force", "nosuch").status, 0);
    const log = join(folder, "log");
    const { stderr } = call("--log", log, "--log-format", "json", "state", "nosuch");
    const { level, msg, time } = JSON.parse(readFileSync(log, "utf8")) as Record<string, string>;
    assert.deepEqual([level, msg, stderr], ["error", "container does not exist", "container does not exist\n"]);
    assert.match(time ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.match(call("--version").stdout, /^vmlet-runtime version .*\nspec: 1\.\d\.\d\n$/);
    assert.equal(call("list", "-f", "json").stdout, "null\n");
    assert.equal(call("nosuch").status, 3);
  });

  it("a container's life, as its commands tell it", async () => {
    assert.equal(create("one"), 0);
    const pid = Number(readFileSync(join(folder, "pid"), "utf8"));
    assert.deepEqual([state("one").status, state("one").pid], ["created", pid]);
    assert.match(call("exec", "one", "true").stderr, /has not been started/);
    assert.notEqual(create("one"), 0);
    assert.equal(call("start", "one").status, 0);
    assert.equal(state("one").status, "running");
    assert.match(call("start", "one").stderr, /already running/);
    assert.match(call("delete", "one").stderr, /cannot delete container one that is not stopped: running/);
    assert.match(call("ps", "one").stdout, /^PID +PPID +CMD\n(?:.*\n)*.*sleep 1000\n/);
    assert.equal(call("ps", "-f", "json", "one").stdout, `[${String(pid)}]\n`);
    assert.match(call("list").stdout, new RegExp(`^ID +PID .*\\none +${String(pid)} +running`));
    assert.match(call("events", "--stats", "one").stdout, /^\{"type":"stats","id":"one","data":\{"cpu":/);
    const inside = call(
      "exec",
      "-e",
      "A=b",
      "--cwd",
      "/tmp",
      "-u",
      "5:6",
      "one",
      "sh",
      "-c",
      'echo "$A $PWD"; id -u; exit 4',
    );
    assert.deepEqual([inside.stdout, inside.status], ["b /tmp\n5\n", 4]);
    // The program is process 1, and who execs is in its namespaces: its processes, its name, its limit of tasks.
    const script = `tr "\\0" " " </proc/1/cmdline; hostname; echo $PPID; for i in ${"x ".repeat(TASKS)}; do sleep 9 & done`;
    const among = call("exec", "one", "sh", "-c", script);
    assert.match(among.stdout, /^sleep 1000 box\n0\n/);
    assert.match(among.stderr, /can't fork/);
    assert.equal(call("kill", "one", "TERM").status, 0);
    assert.equal(state("one").status, "running");
    assert.equal(call("pause", "one").status, 0);
    assert.equal(state("one").status, "paused");
    assert.equal(call("resume", "one").status, 0);
    assert.equal(call("kill", "one", "KILL").status, 0);
    for (let turn = 0; turn < 200 && state("one").status !== "stopped"; turn++) await sleep(50);
    assert.deepEqual([state("one").status, state("one").pid], ["stopped", 0]);
    assert.match(call("kill", "one", "TERM").stderr, /container not running/);
    assert.equal(call("delete", "one").status, 0);
    const told = readFileSync(join(folder, "hooks"), "utf8").trim().split("\n");
    const states = told.map((line) => (JSON.parse(line) as { id: string; status: string }).status);
    assert.deepEqual(states, ["creating", "running", "stopped"]);
    assert.deepEqual(readdirSync(root), []);
  });

  it("of a container whose create, or whose monitor, was killed, delete --force leaves nothing", async () => {
    for (const [index, ms] of [30, 60, 90, 120, 150, 200].entries()) {
      const id = `killed${String(index)}`;
      const child = spawn(RUNTIME, ["--root", root, "create", "-b", folder, id], { stdio: "ignore" });
      const ended = once(child, "close");
      await sleep(ms);
      child.kill("SIGKILL");
      await ended;
      assert.equal(call("delete", "--force", id).status, 0, String(ms));
    }
    assert.equal(create("last"), 0);
    process.kill(state("last").pid, "SIGKILL");
    assert.equal(call("delete", "--force", "last").status, 0);
    for (let turn = 0; turn < 100 && monitors().length > 0; turn++) await sleep(50);
    assert.deepEqual([monitors(), readdirSync(root)], [[], []]);
    for (const controller of readdirSync("/sys/fs/cgroup")) {
      assert.equal(existsSync(join("/sys/fs/cgroup", controller, CGROUP)), false, controller);
    }
  });
});
