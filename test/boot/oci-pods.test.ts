// Needs: root, virtiofsd, Linux 5.12, a /dev/kvm on which guests run, a built program, busybox. A pod by the runtime's own commands, as
// an engine of Kubernetes calls them: one VM, and containers in it.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree } from "../helpers/busybox-image.js";
import { callRuntime, RUNTIME, RUNTIME_LIMIT_MS, whyNoContainers, type Answer } from "../helpers/oci-runtime.js";
import { skip } from "../helpers/skip.js";

const CRI = "io.kubernetes.cri.";
const SANDBOX = { [`${CRI}container-type`]: "sandbox", [`${CRI}sandbox-id`]: "pod" };
const MEMBER = { [`${CRI}container-type`]: "container", [`${CRI}sandbox-id`]: "pod" };

describe("oci pods in a VM", function () {
  this.timeout(RUNTIME_LIMIT_MS);
  let folder = "";
  let root = "";
  let tree = "";

  const call = (...args: readonly string[]): Answer => callRuntime(root, args);
  const output = (id: string): string => readFileSync(join(folder, id, "output"), "utf8");
  /** With its bundle, whose folder takes what it writes. */
  const create = (id: string, annotations: object, script: string, mounts: readonly object[] = []): Answer => {
    const bundle = join(folder, id);
    mkdirSync(bundle, { recursive: true });
    const process = { user: { uid: 0, gid: 0 }, args: ["sh", "-c", script], cwd: "/", env: ["PATH=/bin"] };
    const config = {
      ociVersion: "1.0.2",
      process,
      root: { path: tree },
      hostname: annotations === SANDBOX ? "pod-name" : "",
      mounts: [
        { destination: "/proc", type: "proc", source: "proc" },
        { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755"] },
        { destination: "/dev/shm", type: "bind", source: "/dev/shm", options: ["rbind", "nosuid", "nodev"] },
        ...mounts,
      ],
      annotations,
      linux: { namespaces: [{ type: "network" }], resources: { memory: { limit: 8 * 1024 * 1024 } } },
    };
    writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    const log = openSync(join(bundle, "output"), "w");
    const { status, stderr } = spawnSync(
      RUNTIME,
      ["--root", root, "--log", join(bundle, "log"), "create", "-b", bundle, id],
      {
        stdio: ["ignore", log, log],
        timeout: RUNTIME_LIMIT_MS,
        encoding: "utf8",
      },
    );
    closeSync(log);
    return { status, stdout: "", stderr };
  };
  const until = async (holds: () => boolean, what: string, said: () => string = () => ""): Promise<void> => {
    for (let turn = 0; turn < 100 && !holds(); turn++) await sleep(500);
    assert.ok(holds(), `${what}: ${said()}`);
  };
  const state = (id: string): { status: string; pid: number } =>
    JSON.parse(call("state", id).stdout) as { status: string; pid: number };
  /** What is mounted for the VM, of which container. */
  const sharedOf = (id: string): number =>
    readFileSync(`/proc/${String(state("pod").pid)}/mounts`, "utf8").split(`/share/${id}/`).length - 1;

  before(function () {
    const why = whyNoContainers();
    if (why !== undefined) return skip(this, why);
    folder = mkdtempSync(join(tmpdir(), "vmlet-pods-"));
    root = join(folder, "state");
    tree = busyboxTree(folder);
    countBoot();
  });

  after(() => {
    // The one whose VM it is comes last.
    if (root !== "" && existsSync(root)) {
      for (const id of [...readdirSync(root).filter((name) => name !== "pod"), "pod"]) call("delete", "--force", id);
    }
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("two containers of a pod are in one VM, each with a life of its own", async () => {
    assert.equal(create("early", MEMBER, "true").status, 1);
    assert.match(readFileSync(join(folder, "early/log"), "utf8"), /the pod's sandbox pod is not there/);
    assert.equal(create("pod", SANDBOX, "exec sleep 1000").status, 0);
    assert.equal(create("early", MEMBER, "true").status, 1);
    assert.match(readFileSync(join(folder, "early/log"), "utf8"), /the pod's sandbox pod is created/);
    assert.deepEqual(call("start", "pod"), { status: 0, stdout: "", stderr: "" });
    const data = join(folder, "data");
    mkdirSync(data);
    writeFileSync(join(data, "file"), "of the host\n");
    const binds = [{ destination: "/data", type: "bind", source: data, options: ["rbind", "ro"] }];
    // What a shell does by itself: where the guest's kernel is emulated, each program takes its time.
    const script =
      "read name </proc/sys/kernel/hostname; read text </data/file; echo $name $text; { echo x >/data/no; } 2>/dev/null || echo kept; " +
      "echo mine >/dev/shm/one; echo done; trap 'exit 7' TERM; sleep 1000 & wait";
    assert.equal(create("one", MEMBER, script, binds).status, 0);
    assert.equal(state("one").status, "created");
    assert.notEqual(state("one").pid, state("pod").pid);
    assert.deepEqual(call("start", "one"), { status: 0, stdout: "", stderr: "" });
    await until(
      () => output("one").includes("done\n"),
      "its output",
      () => output("one"),
    );
    assert.equal(output("one"), "pod-name of the host\nkept\ndone\n");
    assert.equal(
      create("two", MEMBER, "read text </dev/shm/one; echo $text; [ -e /data/file ] || echo none; exec sleep 1000")
        .status,
      0,
    );
    assert.equal(call("start", "two").status, 0);
    await until(() => output("two").includes("none\n"), "its output");
    assert.equal(output("two"), "mine\nnone\n");
    const inside = call("exec", "one", "sh", "-c", "read text </data/file; echo $text; exit 4");
    assert.deepEqual([inside.stdout, inside.status], ["of the host\n", 4]);
    assert.match(call("update", "--memory", "64m", "two").stderr, /a container of a pod has the limits/);
    assert.match(call("pause", "two").stderr, /a single container of a pod cannot be paused/);
    // Two names of one thing each: the root, and what is bound into it.
    assert.deepEqual([sharedOf("one"), sharedOf("two")], [2, 1]);
    assert.equal(call("kill", "one", "TERM").status, 0);
    await until(() => state("one").status === "stopped", "its end");
    assert.deepEqual([state("two").status, state("pod").status], ["running", "running"]);
    assert.equal(call("delete", "one").status, 0);
    assert.deepEqual([sharedOf("one"), sharedOf("two")], [0, 1]);
    assert.equal(readFileSync(join(data, "file"), "utf8"), "of the host\n");
    // The same name again: in the VM nothing of it is left.
    assert.equal(create("one", MEMBER, "exit 3").status, 0);
    assert.equal(call("start", "one").status, 0);
    await until(() => state("one").status === "stopped", "its end");
    assert.equal(call("delete", "one").status, 0);
    assert.equal(create("missing", MEMBER, "true").status, 0);
    process.kill(state("missing").pid, "SIGKILL");
    assert.equal(call("delete", "--force", "missing").status, 0);
    assert.equal(call("kill", "two", "KILL").status, 0);
    await until(() => state("two").status === "stopped", "its end");
    assert.equal(state("pod").status, "running");
  });

  it("with the pod's VM its containers end, and nothing is left", async () => {
    assert.equal(create("three", MEMBER, "exec sleep 1000").status, 0);
    assert.equal(call("start", "three").status, 0);
    process.kill(state("pod").pid, "SIGKILL");
    await until(() => state("three").status === "stopped", "its end");
    for (const id of ["two", "three", "pod"])
      assert.deepEqual(call("delete", id), { status: 0, stdout: "", stderr: "" });
    assert.deepEqual(readdirSync(root), []);
  });
});
