// Needs: nothing. The state folders of containers: who is alive, what is another's, what a disk that takes nothing says.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isRoot } from "../../bench/ladder/detect.js";
import { ConfigError, HostError } from "../../vmm/errors.js";
import { deleteContainer } from "../../vmm/oci/delete.js";
import { Log } from "../../vmm/oci/log.js";
import { Container, type ContainerRecord } from "../../vmm/oci/state.js";
import { ownIdentity } from "../../vmm/sdk/process-identity.js";
import { skip } from "../helpers/skip.js";

const PROGRAM_LIMIT_MS = 10_000;
const log = new Log({ log: "/dev/null", logFormat: "text", isDebug: false });
const RECORD: ContainerRecord = {
  id: "one",
  ociVersion: "1.0.2",
  bundle: "/",
  rootfs: "/",
  annotations: {},
  created: "",
  owner: "root",
  cgroups: {},
  hooks: {},
  memoryMib: 64,
  cpus: 1,
  shared: [],
  namespaces: 0,
  role: { kind: "alone" },
  joined: 0,
  group: [],
  steps: [],
  filter: [],
  jail: "on",
};

describe("oci state", () => {
  let root = "";

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "vmlet-state-"));
  });
  afterEach(() => {
    spawnSync("umount", [root], { timeout: PROGRAM_LIMIT_MS });
    rmSync(root, { recursive: true, force: true });
  });

  const make = (more: Partial<ContainerRecord>): Container => {
    const container = new Container(root, "one");
    container.make();
    container.write({ ...RECORD, ...more });
    return container;
  };

  it("a monitor's number that came again, or is of an earlier boot, is no monitor; what has it is left alone", async () => {
    const own = ownIdentity();
    for (const monitor of [
      { ...own, startTicks: own.startTicks - 1 },
      { ...own, boot: "00000000-0000-0000-0000-000000000000" },
    ]) {
      const container = make({ monitor });
      assert.equal(container.status, "stopped");
      await deleteContainer(log, container, true);
      assert.deepEqual(readdirSync(root), []);
    }
  });

  it("one whose create is at work is deleted only by force, which ends that", async () => {
    const creator = spawn("sleep", ["100"], { stdio: "ignore" });
    try {
      const startTicks = Number(
        spawnSync("cat", [`/proc/${String(creator.pid)}/stat`], { encoding: "latin1", timeout: PROGRAM_LIMIT_MS })
          .stdout.split(") ")[1]
          ?.split(" ")[19],
      );
      const container = make({ creator: { ...ownIdentity(), pid: creator.pid ?? 0, startTicks } });
      assert.equal(container.status, "creating");
      await assert.rejects(
        deleteContainer(log, container, false),
        /cannot delete container one that is not stopped: creating/,
      );
      await deleteContainer(log, container, true);
      assert.deepEqual([creator.signalCode ?? "SIGKILL", readdirSync(root)], ["SIGKILL", []]);
    } finally {
      creator.kill("SIGKILL");
    }
  });

  it("several that delete at once remove it once, and its poststop hooks run once", async () => {
    const hook = { path: "/bin/sh", args: ["sh", "-c", `echo x >>${root}/told; sleep 0.2`] };
    const container = make({ hooks: { poststop: [hook] } });
    await Promise.all([1, 2, 3].map(() => deleteContainer(log, new Container(root, "one"), true)));
    assert.equal(spawnSync("cat", [`${root}/told`], { encoding: "utf8", timeout: PROGRAM_LIMIT_MS }).stdout, "x\n");
    assert.equal(container.exists, false);
  });

  it("two that make one of the same name: one does, and what it has made is its own", () => {
    const creator = { ...ownIdentity(), pid: 1 };
    const first = make({ creator });
    const second = new Container(root, "one");
    assert.throws(() => {
      second.make();
    }, ConfigError);
    first.removeUnfinished(creator);
    assert.equal(second.exists, false);
    make({ creator: ownIdentity() });
    first.removeUnfinished(creator);
    assert.equal(second.exists, true);
  });

  it("what another runtime has written is not touched", async () => {
    mkdirSync(join(root, "one"));
    writeFileSync(join(root, "one/state.json"), JSON.stringify({ id: "one", init_process_pid: process.pid }));
    await assert.rejects(deleteContainer(log, new Container(root, "one"), true), /container one is another runtime's/);
    assert.deepEqual(readdirSync(join(root, "one")), ["state.json"]);
  });

  it("a full disk, and one that can only be read, are named in one line, and keep nothing back", async function () {
    if (!isRoot()) return skip(this, "mounting a file system needs root");
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=16k", "none", root], { timeout: PROGRAM_LIMIT_MS });
    if (mounted.status !== 0) return skip(this, "file systems cannot be mounted here");
    const container = make({});
    const full = { ...RECORD, annotations: { a: "x".repeat(100_000) } };
    assert.throws(
      () => {
        container.write(full);
      },
      (error) =>
        error instanceof HostError && /^State folder .*: no space left on the device \(ENOSPC\)$/.test(error.message),
    );
    assert.equal(container.known.id, "one");
    spawnSync("mount", ["-o", "remount,ro", root], { timeout: PROGRAM_LIMIT_MS });
    await assert.rejects(
      deleteContainer(log, container, true),
      /^HostError: State folder .*: on a read-only file system/,
    );
    spawnSync("mount", ["-o", "remount,rw", root], { timeout: PROGRAM_LIMIT_MS });
    await deleteContainer(log, container, true);
    assert.deepEqual(readdirSync(root), []);
  });
});
