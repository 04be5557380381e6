// Needs: nothing.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { ownIdentity, isAlive } from "../../vmm/sdk/process-identity.js";
import { newVmId, StateFolder, stateFolder } from "../../vmm/sdk/state-folder.js";
import type { VmRecord } from "../../vmm/sdk/vm-record.js";

const record = (given: Partial<VmRecord> = {}): VmRecord => {
  const id = given.id ?? newVmId();
  return {
    version: 1,
    id,
    name: `vm-${id}`,
    owner: ownIdentity(),
    created: new Date().toISOString(),
    status: "running",
    source: "busybox",
    command: ["true"],
    memoryMib: 64,
    cpus: 1,
    network: "none",
    ports: [],
    labels: {},
    autoRemove: false,
    hasLog: false,
    hasTerminal: false,
    stopSignal: 15,
    defaults: { env: [], workingDirectory: "/", user: "" },
    restored: false,
    ...given,
  };
};

describe("sdk: the folder of running VMs", () => {
  let root: string;
  let state: StateFolder;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "vmlet-state-"));
    state = new StateFolder(stateFolder({ VMLET_STATE: root }));
  });

  afterEach(() => {
    rmSync(root, { recursive: true, force: true });
  });

  it("finds a VM by its name, its id, and the beginning of that", () => {
    const one = record({ id: "aa00bb00cc00", name: "web" });
    const two = record({ id: "aa11bb11cc11", name: "db" });
    state.add(one);
    state.add(two);
    assert.equal(state.find("web").id, one.id);
    assert.equal(state.find("aa11").name, "db");
    assert.equal(state.find("aa11bb11cc11").name, "db");
    assert.throws(() => state.find("aa"), /More than one VM has an id that begins with aa/);
    assert.throws(() => state.find("mail"), /There is no VM "mail"/);
    assert.throws(() => state.find(""), /There is no VM ""/);
  });

  it("a name is one VM's, and free again after it", () => {
    const one = record({ name: "web" });
    state.add(one);
    assert.throws(() => state.add(record({ name: "web" })), new RegExp(`the VM ${one.id} has it`));
    assert.deepEqual(readdirSync(root).sort(), [one.id, "names"].sort());
    state.remove(one);
    state.add(record({ name: "web" }));
  });

  it("what a killed process has left is put right by whoever looks", async () => {
    const child = spawn("sleep", ["100"]);
    await once(child, "spawn");
    const { boot } = ownIdentity();
    const stat = (await import("node:fs")).readFileSync(`/proc/${String(child.pid)}/stat`, "latin1");
    const startTicks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
    const owner = { pid: child.pid ?? 0, startTicks, boot };
    assert.ok(isAlive(owner));
    const kept = record({ owner, name: "kept" });
    const gone = record({ owner, name: "gone", autoRemove: true });
    const { agentSocket } = state.add(kept);
    writeFileSync(agentSocket, "");
    state.add(gone);
    assert.equal(state.list().length, 2);
    child.kill("SIGKILL");
    await once(child, "close");
    assert.ok(!isAlive(owner));
    assert.deepEqual(
      state.list().map(({ name, status, exitCode }) => [name, status, exitCode]),
      [["kept", "exited", 137]],
    );
    assert.ok(!existsSync(agentSocket));
    // Its name is free.
    state.add(record({ name: "gone" }));
  });

  it("a process number that has come again is another process", () => {
    assert.ok(isAlive(ownIdentity()));
    assert.ok(!isAlive({ ...ownIdentity(), startTicks: 1 }));
    assert.ok(!isAlive({ ...ownIdentity(), boot: "another" }));
  });

  it("records that are no records are nobody's", () => {
    const one = record();
    state.add(one);
    for (const text of ["", "{", "null", '{"version":2}', "[]"]) {
      writeFileSync(state.folderOf(one.id).recordFile, text);
      assert.deepEqual(state.list(), [], text);
    }
  });

  it("keeps the latest of those that have ended", () => {
    for (let i = 0; i < 70; i++) {
      state.add(record({ status: "exited", created: new Date(i * 1000).toISOString(), name: `n${String(i)}` }));
    }
    state.removeOldest();
    const names = state.list().map(({ name }) => name);
    assert.equal(names.length, 64);
    assert.ok(names.includes("n69") && !names.includes("n0"));
  });

  it("may be named from this process's folder; one in which no socket fits is refused, and not made", () => {
    assert.equal(stateFolder({ VMLET_STATE: relative(process.cwd(), root) }), root);
    const long = join(root, "x".repeat(100));
    assert.throws(() => stateFolder({ VMLET_STATE: long }), /a socket in it would have a path of \d+ bytes; 107 fit/);
    assert.ok(!existsSync(long));
  });

  it("is refused where others may write to it", () => {
    chmodSync(root, 0o777);
    assert.throws(() => stateFolder({ VMLET_STATE: root }), /others may write to it/);
    assert.throws(() => stateFolder({ VMLET_STATE: "/proc/nowhere" }), /cannot be made/);
  });
});
