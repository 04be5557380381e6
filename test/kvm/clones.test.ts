// Needs: a /dev/kvm of any kind. Many VMs of one snapshot in one process, with a kernel of a few instructions.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createSnapshot,
  createVm,
  openSnapshot,
  warmThreads,
  type OpenedSnapshot,
  type Machine,
} from "../../vmm/index.js";
import { pool as threads } from "../../vmm/machine/threads.js";
import { SnapshotPool } from "../../vmm/snapshot/pool.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { settledResources } from "../helpers/own-resources.js";
import { skip } from "../helpers/skip.js";
import { Talker } from "../helpers/talker.js";
import { answeringKernel, type MiniKernel } from "../helpers/waiting-kernel.js";

/** What a clone may cost beyond the guest's pages that it has written, which are few here. */
const CLONE_MIB = 5;

function privateMib(): number {
  const text = readFileSync("/proc/self/smaps_rollup", "utf8");
  const kib = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? NaN);
  return (kib("Private_Clean") + kib("Private_Dirty")) / 1024;
}

describe("kvm: clones", function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  let kernel: MiniKernel | undefined;
  let snapshot: OpenedSnapshot | undefined;
  const talkers: Talker[] = [];

  before(async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    kernel = answeringKernel();
    const { path } = kernel;
    const original = new Talker((host) => createVm({ kernel: path, memoryMib: 128 }, host));
    original.start();
    await original.says((said) => said === "!");
    await original.answers("a", "b");
    await createSnapshot(original.vm, join(folder, "snapshot"));
    await original.vm.close();
    snapshot = openSnapshot(join(folder, "snapshot"));
  });
  afterEach(async () => {
    await Promise.all(talkers.splice(0).map(({ vm }) => vm.close()));
    await threads.endIdle();
  });
  after(() => {
    snapshot?.close();
    kernel?.remove();
    rmSync(folder, { recursive: true });
  });

  function opened(): OpenedSnapshot {
    assert.ok(snapshot !== undefined);
    return snapshot;
  }

  function clone(make: ConstructorParameters<typeof Talker>[0] = (host) => opened().restore(host)): Talker {
    const talker = new Talker(make);
    talkers.push(talker);
    talker.start();
    return talker;
  }

  it("200 are alive at once, most of them without a thread, each answers, and nothing of them is left", async () => {
    await clone().answers("a", "b");
    await talkers.pop()?.vm.close();
    const before = await settledResources();
    const clones = Array.from({ length: 200 }, () => clone());
    for (const one of clones) await one.answers("x", "y");
    await Promise.all(clones.map((one) => one.answers("ab", "bc")));
    assert.ok(threads.size <= threads.most, `${String(threads.size)} threads`);
    await Promise.all(talkers.splice(0).map(({ vm }) => vm.close()));
    assert.deepEqual(await settledResources(), before);
  });

  it(`the 41st to the 50th cost no more than ${String(CLONE_MIB)} MiB each`, async () => {
    const alive = async (count: number): Promise<number> => {
      while (talkers.length < count) await clone().answers("a", "b");
      return privateMib();
    };
    const before = await alive(40);
    const each = ((await alive(50)) - before) / 10;
    assert.ok(each <= CLONE_MIB, `${each.toFixed(2)} MiB`);
  });

  it("a clone goes on with what the guest knew, and the snapshot does not change by it", async () => {
    for (let i = 0; i < 3; i++) {
      const one = clone();
      await one.answers("hello", "ifmmp");
      assert.equal(one.said, "ifmmp");
    }
  });

  it("a pool has VMs ready, fills itself again, and frees those that nobody takes", async () => {
    await warmThreads(2);
    const before = await settledResources();
    const pool = opened().pool({ size: 3 });
    await pool.filled();
    assert.equal(pool.ready, 3);
    const [first, second] = [1, 2].map(() => clone((host) => pool.take(host)));
    assert.equal(pool.ready, 1);
    await first?.answers("a", "b");
    await second?.answers("b", "c");
    await pool.filled();
    assert.equal(pool.ready, 3);
    for (let i = 0; i < 5; i++) await clone((host) => pool.take(host)).answers("a", "b");
    await pool.close();
    assert.throws(() => pool.take({ output: () => undefined }), { code: "ERR_CONFIG" });
    await Promise.all(talkers.splice(0).map(({ vm }) => vm.close()));
    assert.deepEqual(await settledResources(), before);
  });

  it("a pool whose VMs cannot be made says so to whoever takes one, and goes on once they can", async () => {
    let isBroken = true;
    const failures: unknown[] = [];
    const make = (host: Parameters<OpenedSnapshot["restore"]>[0]): Machine => {
      if (isBroken) throw new Error("no memory");
      return opened().restore(host);
    };
    const pool = new SnapshotPool(make, { size: 1, failed: (error) => failures.push(error) });
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(failures.length, 1);
    assert.throws(() => pool.take({ output: () => undefined }), /no memory/);
    isBroken = false;
    await clone((host) => pool.take(host)).answers("a", "b");
    await pool.filled();
    assert.equal(pool.ready, 1);
    await pool.close();
  });

  it("a size of a pool, or a number of threads, that makes no sense is refused", async () => {
    for (const size of [0, -1, 1.5, NaN, 1001, "3" as never]) {
      assert.throws(() => opened().pool({ size }), { code: "ERR_CONFIG" }, String(size));
    }
    for (const count of [-1, 0.5, 1e6]) await assert.rejects(warmThreads(count), { code: "ERR_CONFIG" });
  });
});
