// Needs: a /dev/kvm of any kind, virtiofsd and the right to start it. Guests of a few instructions with a shared folder, saved and
// restored: each restore has a server of its own, of its own folder, and nothing of it is left.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createSnapshot, createVm, openSnapshot, type Machine, type OpenedSnapshot } from "../../vmm/index.js";
import { collectOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { settledResources } from "../helpers/own-resources.js";
import { start } from "../helpers/program.js";
import { shareProblem } from "../helpers/share-guard.js";
import { serversOf } from "../helpers/share-servers.js";
import { skip } from "../helpers/skip.js";
import { assertCounts } from "../helpers/snapshot-cycles.js";

const RESTORES = 20;

async function none(what: string, list: () => readonly unknown[]): Promise<void> {
  const end = performance.now() + 20_000;
  while (list().length > 0) {
    assert.ok(performance.now() < end, `${what} go on`);
    await sleep(10);
  }
}

function noServers(folder: string): Promise<void> {
  return none(`servers of ${folder}`, () => serversOf(folder));
}

/** Processes, none that are dead, which have this in their environment. */
function processesWith(variable: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      // A process that is dead has none.
      return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(variable);
    } catch {
      return false;
    }
  });
}

describe("kvm: snapshots with shared folders", function () {
  this.timeout(120_000);
  let folder = "";
  let kernel: MiniKernel;
  let opened: OpenedSnapshot;
  const vms: Machine[] = [];
  const at = (name: string): string => join(folder, name);

  before(async function () {
    const reason = whyNoKvm() ?? shareProblem();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-shares-"));
    kernel = miniKernel(asm.countInMemory());
    for (const name of ["first", "other", "third"]) mkdirSync(at(name));
    writeFileSync(at("file"), "");
    const output = collectOutput();
    const shares = [{ path: at("first") }, { path: at("file"), isReadonly: true }];
    const vm = createVm({ kernel: kernel.path, memoryMib: 32, shares }, output.host);
    const run = vm.start();
    await output.until(100);
    await createSnapshot(vm, at("saved"));
    vm.stop();
    await run;
    await vm.close();
    opened = openSnapshot(at("saved"));
  });
  afterEach(async () => {
    for (const vm of vms.splice(0)) await vm.close();
  });
  after(() => {
    if (folder === "") return;
    opened.close();
    kernel.remove();
    rmSync(folder, { recursive: true });
  });

  it(`${String(RESTORES)} restored one after another: each goes on where it was, with a server of the folder that it is given, and leaves nothing`, async () => {
    const restoreOnce = async (path: string): Promise<void> => {
      const output = collectOutput();
      const vm = opened.restore(output.host, { shares: { share0: { path: at(path) } } });
      vms.push(vm);
      const run = vm.start();
      await output.until(300);
      assert.deepEqual(
        ["first", "other", "third"].filter((name) => serversOf(at(name)).length > 0),
        [path],
      );
      vm.stop();
      await run;
      await vm.close();
      vms.length = 0;
      assertCounts(output.bytes(), output.bytes()[0]);
    };
    await restoreOnce("other");
    await noServers(folder);
    const before = await settledResources();
    for (let times = 0; times < RESTORES; times++) await restoreOnce(times % 2 === 0 ? "other" : "third");
    await noServers(folder);
    const after = await settledResources();
    assert.deepEqual({ ...after, threads: 0, eventLoop: [] }, { ...before, threads: 0, eventLoop: [] });
  });

  it("several at once, and a snapshot of one that has gone on, from which others go on", async () => {
    const clones = [1, 2, 3].map(() => {
      const output = collectOutput();
      const vm = opened.restore(output.host);
      vms.push(vm);
      return { vm, output, run: vm.start() };
    });
    await Promise.all(clones.map(({ output }) => output.until(300)));
    assert.equal(serversOf(at("first")).length >= 3, true);
    const [first] = clones;
    assert.ok(first !== undefined);
    await createSnapshot(first.vm, at("full"));
    await createSnapshot(first.vm, at("over"), { base: at("saved") });
    for (const name of ["full", "over"]) {
      const again = openSnapshot(at(name));
      const output = collectOutput();
      const vm = again.restore(output.host, { shares: { share0: { path: at("third") } } });
      const run = vm.start();
      await output.until(300);
      vm.stop();
      await run;
      await vm.close();
      again.close();
      assertCounts(output.bytes(), output.bytes()[0]);
    }
    for (const { vm, run } of clones) {
      vm.stop();
      await run;
    }
  });

  it("a folder that is not there is one error before anything is made, a server that cannot be started one that leaves nothing", async () => {
    const { host } = collectOutput();
    const before = await settledResources();
    assert.throws(() => opened.restore(host, { shares: { share0: { path: at("none") } } }), {
      code: "ERR_CONFIG",
      message: `Shared folder ${at("none")}: no such file or folder (ENOENT)`,
    });
    const path = process.env["PATH"];
    // What makes a file a folder, and read-only, is not found then.
    process.env["PATH"] = at("first");
    try {
      assert.throws(() => opened.restore(host), { code: "ERR_HOST", message: /virtiofsd cannot be started/ });
    } finally {
      process.env["PATH"] = path;
    }
    await noServers(folder);
    const after = await settledResources();
    assert.deepEqual({ ...after, threads: 0, eventLoop: [] }, { ...before, threads: 0, eventLoop: [] });
  });

  it("after kill -9 of its monitor, in the middle of the restore or later, no server and no socket is left", async () => {
    const temporary = at("tmp");
    mkdirSync(temporary);
    for (const delayMs of [60, 120, 180, 250, 2000]) {
      const words = ["dist/vmlet.js", "snapshot", "restore", "--share", `share0=${at("other")}`, at("saved")];
      const { child, ended } = start(words, { env: { ...process.env, TMPDIR: temporary } }, 60_000);
      await sleep(delayMs);
      child.kill("SIGKILL");
      await ended;
      await none("its processes", () => processesWith(`TMPDIR=${temporary}`));
      // Between two system calls, its folder may be there: it is empty, or has a socket that nobody listens at.
      if (delayMs === 2000) assert.deepEqual(readdirSync(temporary), []);
      rmSync(temporary, { recursive: true });
      mkdirSync(temporary);
    }
  });
});
