// Needs: nothing. What the threads of a VM share.
import assert from "node:assert/strict";
import { lock, unlock } from "../../devices/lock.js";
import { ConsoleWatcher } from "../../vmm/machine/console-watcher.js";
import { MILESTONE_INIT, VCPU_IDLE, VCPU_RUNNING, VCPU_STANDBY, VmShared } from "../../vmm/vcpu/shared.js";
import { reportExit } from "../../vmm/machine/vm-exit.js";
import { Worker } from "node:worker_threads";

describe("shared", () => {
  it("the output ring keeps order over its wrap-around, and refuses what does not fit", () => {
    const shared = VmShared.create(1, 0);
    let sent = 0;
    let received = 0;
    for (let round = 0; round < 50; round++) {
      for (let i = 0; i < 10_000; i++) assert.ok(shared.putOutput(sent++ & 0xff));
      while (received < sent) {
        const bytes = shared.peekOutput();
        for (const byte of bytes) assert.equal(byte, received++ & 0xff);
        shared.consumeOutput(bytes.length);
      }
    }
    let fitted = 0;
    while (shared.putOutput(0)) fitted++;
    assert.equal(fitted, 256 * 1024);
    assert.equal(shared.outputIsHigh(), true);
  });

  it("the first reason to stop counts", () => {
    const shared = VmShared.create(1, 0);
    assert.equal(shared.tryStop("reboot"), true);
    assert.equal(shared.tryStop("killed"), false);
    assert.equal(shared.outcome, "reboot");
  });

  it("the first time of a milestone stays; codes that nobody knows are ignored", () => {
    const shared = VmShared.create(2, 3);
    shared.markMilestone(MILESTONE_INIT, 5n);
    shared.markMilestone(MILESTONE_INIT, 9n);
    shared.markMilestone(7, 1n);
    shared.markMilestone(255, 1n);
    assert.equal(shared.milestone(MILESTONE_INIT), 5n);
  });

  it("a vCPU changes hands once", () => {
    const shared = VmShared.create(2, 0);
    assert.equal(shared.claimVcpu(1, VCPU_IDLE, VCPU_STANDBY), true);
    assert.equal(shared.claimVcpu(1, VCPU_IDLE, VCPU_RUNNING), false);
    assert.equal(shared.vcpuState(0), VCPU_IDLE);
  });

  it("a halt is believed only in answer to the latest question", () => {
    const shared = VmShared.create(1, 0);
    assert.equal(shared.isHalted(0), false);
    shared.askHalted();
    shared.answerHalted(0, shared.haltQuestion);
    assert.equal(shared.isHalted(0), true);
    shared.askHalted();
    assert.equal(shared.isHalted(0), false);
  });

  it("sums exits by reason under the names of reports", () => {
    const shared = VmShared.create(2, 0);
    shared.exitCounters(0)[2] = 3;
    shared.exitCounters(1)[2] = 4;
    shared.exitCounters(1)[6] = 1;
    shared.tryStop("poweroff");
    assert.deepEqual(reportExit(shared, new ConsoleWatcher(), undefined, {}).exits, { io: 7, mmio: 1 });
  });
});

describe("lock", () => {
  it("two threads never hold it together", async function () {
    this.timeout(20_000);
    const words = new Int32Array(new SharedArrayBuffer(16));
    const rounds = 50_000;
    const script = `
      const { workerData, parentPort } = require("node:worker_threads");
      import(workerData.lock).then(({ lock, unlock }) => {
        const { words } = workerData;
        for (let i = 0; i < ${String(rounds)}; i++) { lock(words, 0); words[1] = words[1] + 1; unlock(words, 0); }
        parentPort.postMessage("done");
      });`;
    const workerData = { lock: new URL("../../devices/lock.js", import.meta.url).href, words };
    const worker = new Worker(script, { eval: true, workerData });
    const done = new Promise((resolve) => worker.once("message", resolve));
    for (let i = 0; i < rounds; i++) {
      lock(words, 0);
      words[1] = (words[1] ?? 0) + 1;
      unlock(words, 0);
    }
    await done;
    assert.equal(words[1], 2 * rounds);
    await worker.terminate();
  });
});

describe("console-watcher", () => {
  it("sees a panic that comes in pieces, and a halt", () => {
    const watcher = new ConsoleWatcher();
    for (const piece of ["[1.0] Kernel pan", "ic - not sync", "ing: Attempted"]) watcher.see(Buffer.from(piece));
    assert.deepEqual([watcher.sawPanic, watcher.sawHalt], [true, false]);
    watcher.see(Buffer.from("reboot: System halted"));
    assert.equal(watcher.sawHalt, true);
  });
});
