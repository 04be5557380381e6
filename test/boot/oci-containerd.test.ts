// Needs: root, virtiofsd, Linux 5.12, a /dev/kvm on which guests run, a built program, busybox, containerd with ctr and its shim of runc. A
// pod of two containers by containerd, as its CRI plugin calls the runtime; crictl itself is in the lane `make cri`.
import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram } from "../../vmm/host/programs.js";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree } from "../helpers/busybox-image.js";
import { leftovers, makeParentGroups, removeParentGroups, temporaryFiles } from "../helpers/container-leftovers.js";
import { RUNTIME, RUNTIME_LIMIT_MS, whyNoContainers, type Answer } from "../helpers/oci-runtime.js";
import { skip } from "../helpers/skip.js";

const CRI = "io.kubernetes.cri.";
/** Where the guest's kernel is emulated, each of the eater's pages takes milliseconds. */
const TURNS = 900;
const TURN_MS = 200;
const NEEDED = ["containerd", "ctr", "containerd-shim-runc-v2"];
const EATER_LIMIT = 4 * 1024 * 1024;
/** containerd's, and the control group above its containers'. */
const NAMESPACE = `vmlet-test-${String(process.pid)}`;
const CONTAINERS = ["one", "eater", "pod"];

describe("a pod by containerd", function () {
  this.timeout(RUNTIME_LIMIT_MS);
  let folder = "";
  let tree = "";
  let daemon: ChildProcess | undefined;
  let events: ChildProcess | undefined;
  let log = -1;

  const words = (): string[] => ["--address", join(folder, "containerd.sock"), "--namespace", NAMESPACE];
  const ctr = (...command: readonly string[]): Answer =>
    spawnSync("ctr", [...words(), ...command], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      timeout: RUNTIME_LIMIT_MS,
    });
  const output = (id: string): string => readFileSync(join(folder, `${id}.log`), "utf8");
  const run = (
    id: string,
    kind: "sandbox" | "container",
    command: readonly string[],
    options: readonly string[] = [],
  ) =>
    ctr(
      ...["run", "--detach", "--runc-binary", RUNTIME, "--runc-root", join(folder, "state")],
      ...["--annotation", `${CRI}container-type=${kind}`, "--annotation", `${CRI}sandbox-id=pod`],
      ...["--log-uri", `file://${join(folder, `${id}.log`)}`, ...options, "--rootfs", tree, id, ...command],
    );
  const until = async (holds: () => boolean, what: string, said: () => string): Promise<void> => {
    for (let turn = 0; turn < TURNS && !holds(); turn++) await sleep(TURN_MS);
    assert.ok(holds(), `${what}: ${said()}`);
  };
  const statusOf = (id: string): string =>
    new RegExp(`^${id} +\\d+ +(\\w+)`, "m").exec(ctr("tasks", "list").stdout)?.[1] ?? "none";
  const ended = (id: string) =>
    until(
      () => statusOf(id) === "STOPPED",
      `${id}'s end`,
      () => statusOf(id),
    );

  /** Of what has ended, which is not known to containerd any more then. */
  const exitCode = (id: string): number => {
    const { status, stderr } = ctr("tasks", "delete", id);
    assert.equal(status, 0, stderr);
    return Number(/exit with non-zero exit code (\d+)/.exec(stderr)?.[1] ?? 0);
  };

  const stop = async (): Promise<void> => {
    for (const child of [events, daemon]) {
      if (child?.exitCode === null && child.signalCode === null) {
        child.kill();
        await once(child, "exit");
      }
    }
    daemon = undefined;
  };

  before(async function () {
    const why = whyNoContainers();
    if (why !== undefined) return skip(this, why);
    const missing = NEEDED.filter((name) => findProgram(name) === undefined);
    if (missing.length > 0) return skip(this, `not installed: ${missing.join(", ")} (Debian: containerd)`);
    folder = mkdtempSync(join(tmpdir(), "vmlet-containerd-"));
    tree = busyboxTree(folder);
    makeParentGroups(NAMESPACE);
    const at = (name: string): string => JSON.stringify(join(folder, name));
    writeFileSync(
      join(folder, "config.toml"),
      `version = 2\nroot = ${at("root")}\nstate = ${at("run")}\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n` +
        `[grpc]\n  address = ${at("containerd.sock")}\n`,
    );
    log = openSync(join(folder, "containerd.log"), "w");
    daemon = spawn("containerd", ["--config", join(folder, "config.toml")], { stdio: ["ignore", log, log] });
    await until(
      () => ctr("version").status === 0,
      "containerd",
      () => readFileSync(join(folder, "containerd.log"), "utf8"),
    );
    countBoot();
  });

  after(async () => {
    if (folder === "") return;
    if (daemon !== undefined) {
      for (const id of CONTAINERS) {
        ctr("tasks", "delete", "--force", id);
        ctr("containers", "delete", id);
      }
    }
    await stop();
    removeParentGroups(NAMESPACE);
    if (log >= 0) closeSync(log);
    rmSync(folder, { recursive: true });
  });

  it("start, exec, logs, figures, one out of memory, stop, remove; nothing is left", async () => {
    const started = run("pod", "sandbox", ["sleep", "1000"]);
    assert.equal(started.status, 0, started.stderr);
    const listener = spawn("ctr", [...words(), "events"], { stdio: ["ignore", "pipe", "ignore"] });
    events = listener;
    let heard = "";
    listener.stdout.setEncoding("utf8").on("data", (text: string) => (heard += text));
    const one = run("one", "container", ["sh", "-c", "trap 'exit 7' TERM; echo begun; sleep 1000 & wait"]);
    assert.equal(one.status, 0, one.stderr);
    await until(
      () => output("one") === "begun\n",
      "its output",
      () => output("one"),
    );
    const inside = ctr("tasks", "exec", "--exec-id", "e", "one", "sh", "-c", "echo inside; exit 4");
    assert.deepEqual([inside.stdout, inside.status], ["inside\n", 4], inside.stderr);
    // The sandbox's figures are those of the VM.
    assert.match(ctr("tasks", "metrics", "pod").stdout, /^memory\.(usage_in_bytes|usage) +[1-9]\d+ *$/m);
    const eat = ["dd", "if=/dev/zero", "of=/dev/null", "bs=20M"];
    const eater = run("eater", "container", eat, ["--memory-limit", String(EATER_LIMIT)]);
    assert.equal(eater.status, 0, eater.stderr);
    await ended("eater");
    await until(
      () => heard.includes("/tasks/oom"),
      "the event of it",
      () => heard,
    );
    assert.match(/^.*\/tasks\/oom.*$/m.exec(heard)?.[0] ?? "", /"eater"/);
    assert.deepEqual([statusOf("one"), statusOf("pod")], ["RUNNING", "RUNNING"]);
    assert.equal(exitCode("eater"), 137);
    assert.equal(ctr("tasks", "kill", "--signal", "TERM", "one").status, 0);
    await ended("one");
    assert.equal(exitCode("one"), 7);
    assert.equal(statusOf("pod"), "RUNNING");
    assert.equal(ctr("tasks", "kill", "--signal", "KILL", "pod").status, 0);
    await ended("pod");
    assert.equal(exitCode("pod"), 137);
    for (const id of CONTAINERS) assert.equal(ctr("containers", "delete", id).status, 0);
    await stop();
    const root = join(folder, "state", NAMESPACE);
    // Temporary files may be another's that is at work.
    const temporary = temporaryFiles();
    assert.deepEqual(leftovers({ folder, root, cgroupParent: NAMESPACE, networks: [], temporary }), []);
  });
});
