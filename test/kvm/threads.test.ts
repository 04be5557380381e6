// Needs: a /dev/kvm of any kind. Many VMs on few threads, with kernels of a few instructions.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { createVm, type VmConfig } from "../../vmm/index.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { pool } from "../../vmm/machine/threads.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { skip } from "../helpers/skip.js";
import { Talker } from "../helpers/talker.js";
import { answeringKernel, tickingKernel, type TimerKind } from "../helpers/waiting-kernel.js";

/** Without those that the kernel makes for each VM. */
const threadsNow = (): number =>
  readdirSync("/proc/self/task").filter((tid) => !readFileSync(`/proc/self/task/${tid}/comm`, "utf8").startsWith("kvm"))
    .length;
const isSpoken = (said: string): boolean => said !== "";

function talkerOf({ path }: MiniKernel, config: Partial<VmConfig> = {}): Talker {
  return new Talker((host) => createVm({ kernel: path, memoryMib: 32, ...config }, host));
}

describe("kvm: threads", function () {
  this.timeout(120_000);
  const kernels: MiniKernel[] = [];
  const talkers: Talker[] = [];
  const { most } = pool;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
  });
  afterEach(async () => {
    await Promise.all(talkers.splice(0).map(({ vm }) => vm.close()));
    for (const kernel of kernels.splice(0)) kernel.remove();
    pool.most = most;
    await pool.endIdle();
  });

  function start(kernel: MiniKernel, config: Partial<VmConfig> = {}): Talker {
    kernels.push(kernel);
    const talker = talkerOf(kernel, config);
    talkers.push(talker);
    talker.start();
    return talker;
  }

  it("20 VMs that wait share 2 threads at most, and each answers when it is asked", async () => {
    pool.most = 2;
    // What tests before this one have left to be used again.
    await pool.endIdle();
    const before = threadsNow();
    const all = Array.from({ length: 20 }, () => start(answeringKernel()));
    await Promise.all(all.map((talker) => talker.says(isSpoken)));
    // On a fast host the first one waits, and has given its thread back, before the second begins.
    const isShared = (): boolean => threadsNow() - before <= 2;
    assert.ok(isShared());
    for (const talker of all) await talker.answers("a", "b");
    await Promise.all(all.map((talker) => talker.answers("hello", "ifmmp")));
    assert.ok(isShared());
  });

  for (const kind of ["one-shot", "periodic", "deadline", "pit", "pit-one-shot"] satisfies TimerKind[]) {
    it(`the ${kind} timer of a VM that has no thread is due in time`, async () => {
      pool.most = 1;
      const ticking = start(tickingKernel(kind, 50));
      const others = [1, 2, 3].map(() => start(answeringKernel()));
      await Promise.all([ticking, ...others].map((talker) => talker.says(isSpoken)));
      const started = Date.now();
      const { length } = ticking.said;
      await ticking.says((said) => said.length >= length + 10);
      const tookMs = Date.now() - started;
      assert.ok(tookMs > 200 && tookMs < timeLimit("ten ticks", 2500), `10 times 50 ms took ${String(tookMs)} ms`);
    });
  }

  it("VMs that never wait take turns, and one that waits is heard between them", async () => {
    pool.most = 2;
    const busy = Array.from({ length: 5 }, () => start(miniKernel(asm.print("x"), asm.spin())));
    const waiting = start(answeringKernel());
    await Promise.all([...busy, waiting].map((talker) => talker.says(isSpoken)));
    for (let i = 0; i < 5; i++) await waiting.answers("a", "b");
  });

  it("a VM with more vCPUs than there are threads runs", async () => {
    pool.most = 1;
    const large = start(miniKernel(asm.print("x"), asm.spin()), { cpus: 3 });
    const small = start(answeringKernel());
    await Promise.all([large, small].map((talker) => talker.says(isSpoken)));
    await small.answers("a", "b");
  });

  it("VMs without a thread pause, go on, stop and close as others", async () => {
    pool.most = 1;
    const all = Array.from({ length: 6 }, () => start(answeringKernel()));
    await Promise.all(all.map((talker) => talker.says(isSpoken)));
    await Promise.all(all.map(({ vm }) => vm.pause()));
    for (const { vm } of all) assert.equal(vm.input(Buffer.from("a")), 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(
      all.map(({ said }) => said),
      all.map(() => "!"),
    );
    for (const { vm } of all) vm.resume();
    await Promise.all(all.map((talker) => talker.says((said) => said === "!b")));
    const [first, second] = all;
    first?.vm.stop();
    await second?.vm.close();
    assert.equal(second?.vm.state, "closed");
    for (const talker of all.slice(2)) await talker.answers("x", "y");
  });

  it("a guest that has halted for ever is ended, though others wait", async () => {
    pool.most = 1;
    const halted = [1, 2].map(() => {
      const kernel = miniKernel(asm.print("x"), asm.haltForEver());
      kernels.push(kernel);
      return talkerOf(kernel);
    });
    talkers.push(...halted);
    const exits = await Promise.all(halted.map(({ vm }) => vm.start()));
    assert.deepEqual(
      exits.map(({ outcome }) => outcome),
      ["halted", "halted"],
    );
  });

  it("a thread runs one VM after another, and ends when nobody needs it", async () => {
    const before = threadsNow();
    for (let i = 0; i < 5; i++) {
      const talker = start(miniKernel(asm.print("x"), asm.powerOff(0)));
      await talker.says(isSpoken);
      await talker.vm.close();
    }
    assert.equal(threadsNow() - before, 1);
    await pool.endIdle();
    assert.equal(threadsNow(), before);
  });

  it("a program that leaves by process.exit while VMs run, wait and rest is gone at once", () => {
    const guests = [miniKernel(asm.print("x"), asm.spin()), answeringKernel()];
    kernels.push(...guests);
    const script = new URL("../helpers/exit-with-vms.js", import.meta.url).pathname;
    const argv = [script, ...guests.map(({ path }) => path)];
    const { status, signal, stderr } = spawnSync(process.execPath, argv, { encoding: "utf8", timeout: 60_000 });
    assert.deepEqual([status, signal, stderr], [5, null, ""]);
  });
});
