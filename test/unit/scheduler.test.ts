// Needs: nothing. Who has threads when, with VMs and threads that only say what they were told.
import assert from "node:assert/strict";
import type { NextEvent } from "../../vmm/kvm/next-event.js";
import { Scheduler, SLICE_MS, type Runnable } from "../../vmm/machine/scheduler.js";
import { ThreadPool } from "../../vmm/machine/thread-pool.js";
import type { VcpuThread } from "../../vmm/machine/vcpu-thread.js";

class FakeThread {
  isBroken = false;
  hasEnded = false;
  end(): Promise<void> {
    this.hasEnded = true;
    return Promise.resolve();
  }
  whenReady(): Promise<void> {
    return Promise.resolve();
  }
}

class FakeVm implements Runnable {
  isClear = true;
  next: NextEvent = 0;
  threads: readonly VcpuThread[] = [];
  asked = 0;
  runs = 0;
  error: unknown;
  isHalted = false;

  readonly vcpus: number;

  constructor(vcpus = 1) {
    this.vcpus = vcpus;
  }

  run(threads: readonly VcpuThread[]): void {
    assert.equal(threads.length, this.vcpus);
    this.threads = threads;
    this.runs++;
  }
  askToRest(): void {
    this.asked++;
  }
  goOn(): void {
    this.asked = 0;
  }
  release(): readonly VcpuThread[] {
    const held = this.threads;
    this.threads = [];
    this.asked = 0;
    return held;
  }
  nextEvent(): NextEvent {
    return this.next;
  }
  haltedForEver(): void {
    this.isHalted = true;
  }
  failed(error: unknown): void {
    this.error = error;
  }
  get runsNow(): boolean {
    return this.threads.length > 0;
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function rig(most: number, refuseFrom = Infinity) {
  const made: FakeThread[] = [];
  const pool = new ThreadPool(() => {
    if (made.length >= refuseFrom) throw new Error("no more threads");
    made.push(new FakeThread());
    return made.at(-1) as unknown as VcpuThread;
  }, most);
  return { pool, scheduler: new Scheduler(pool), made };
}

/** What the VMs do that are asked: they rest at once, for so long. */
async function answerFor(ms: number, scheduler: Scheduler, vms: readonly FakeVm[]): Promise<void> {
  for (const until = performance.now() + ms; performance.now() < until;) {
    for (const vm of vms) if (vm.asked > 0) scheduler.rested(vm);
    await sleep(1);
  }
}

describe("scheduler", () => {
  it("with as many threads as vCPUs, every VM has its own and nobody is asked for it", async () => {
    const { scheduler, made } = rig(4);
    const vms = [new FakeVm(), new FakeVm(), new FakeVm(2)];
    for (const vm of vms) scheduler.add(vm);
    await sleep(3 * SLICE_MS);
    assert.ok(vms.every((vm) => vm.runsNow && vm.asked === 0 && vm.runs === 1));
    assert.equal(made.length, 4);
  });

  it("a VM that waits in HLT gives its thread to another, and runs again when an interrupt is raised", async () => {
    const { scheduler, made } = rig(1);
    const [idle, busy] = [new FakeVm(), new FakeVm()];
    scheduler.add(idle);
    idle.next = "interrupt";
    scheduler.add(busy);
    await answerFor(20, scheduler, [idle]);
    assert.deepEqual([idle.runsNow, busy.runsNow, made.length], [false, true, 1]);
    idle.next = 0;
    scheduler.wake(idle);
    await answerFor(3 * SLICE_MS, scheduler, [busy]);
    assert.ok(idle.runs === 2 && made.length === 1);
  });

  it("an interrupt that is raised while a VM comes to rest is not forgotten", async () => {
    const { scheduler } = rig(1);
    const [idle, other] = [new FakeVm(), new FakeVm()];
    scheduler.add(idle);
    idle.next = "interrupt";
    scheduler.add(other);
    while (idle.asked === 0) await sleep(1);
    scheduler.wake(idle);
    scheduler.rested(idle);
    assert.equal(idle.runsNow, true);
    scheduler.remove(idle);
    scheduler.remove(other);
  });

  it("VMs that never wait take turns", async () => {
    const { scheduler } = rig(2);
    const vms = Array.from({ length: 5 }, () => new FakeVm());
    for (const vm of vms) scheduler.add(vm);
    await answerFor(20 * SLICE_MS, scheduler, vms);
    const runs = vms.map((vm) => vm.runs);
    assert.ok(Math.min(...runs) >= 2, runs.join());
    assert.ok(Math.max(...runs) <= 3 * Math.min(...runs), runs.join());
  });

  it("a VM that waits when it is added takes no thread, and is run when its timer is due, or at a poll", async () => {
    const { scheduler, made } = rig(2);
    const [timer, silent] = [new FakeVm(), new FakeVm()];
    timer.next = 1;
    silent.next = "interrupt";
    scheduler.add(timer);
    scheduler.add(silent);
    assert.equal(made.length, 0);
    await sleep(30);
    assert.ok(timer.runsNow && silent.runsNow);
  });

  it("a VM in which nothing can happen any more is told so", () => {
    const { scheduler } = rig(1);
    const vm = new FakeVm();
    vm.next = "never";
    scheduler.add(vm);
    assert.ok(vm.isHalted && !vm.runsNow);
  });

  it("all vCPUs of a VM have threads or none, and a large one has them once it is alone", async () => {
    const { scheduler, made } = rig(2);
    const [small, large] = [new FakeVm(), new FakeVm(3)];
    scheduler.add(small);
    scheduler.add(large);
    assert.equal(large.runsNow, false);
    await answerFor(4 * SLICE_MS, scheduler, [small, large]);
    assert.ok(large.runs >= 1 && small.runs >= 1);
    assert.equal(made.length, 3);
  });

  it("a VM is not run before its last thread has let go of it", () => {
    const { scheduler } = rig(1);
    const vm = new FakeVm();
    vm.isClear = false;
    scheduler.add(vm);
    assert.equal(vm.runsNow, false);
    vm.isClear = true;
    scheduler.serve();
    assert.equal(vm.runsNow, true);
  });

  it("a VM that has ended or is paused leaves its place to others", () => {
    const { scheduler, pool } = rig(1);
    const [first, second, third] = [new FakeVm(), new FakeVm(), new FakeVm()];
    for (const vm of [first, second, third]) scheduler.add(vm);
    scheduler.remove(second);
    scheduler.remove(first);
    for (const thread of first.release()) pool.giveBack(thread);
    scheduler.serve();
    assert.deepEqual([second.runsNow, third.runsNow], [false, true]);
    assert.equal(scheduler.wake(first), false);
  });

  it("a host that gives fewer threads: those that there are do, and with none there is one error", async () => {
    const some = rig(4, 1);
    const vms = [new FakeVm(), new FakeVm()];
    for (const vm of vms) some.scheduler.add(vm);
    await answerFor(5 * SLICE_MS, some.scheduler, vms);
    assert.ok(vms.every(({ runs, error }) => runs >= 1 && error === undefined));
    const none = rig(4, 0);
    const vm = new FakeVm();
    none.scheduler.add(vm);
    assert.match(String(vm.error), /no more threads/);
  });
});

describe("thread pool", () => {
  it("the last thread that was given back is the next, each once", () => {
    const { pool } = rig(8);
    const [a, b] = pool.take(2) ?? [];
    assert.ok(a !== undefined && b !== undefined);
    for (const thread of [a, b, b]) pool.giveBack(thread);
    assert.deepEqual(pool.take(2), [a, b]);
    assert.equal(pool.size, 2);
  });

  it("no more than there may be, but for who is alone or must have one", () => {
    const { pool } = rig(2);
    assert.equal(pool.take(3)?.length, 3);
    assert.equal(pool.take(1), undefined);
    assert.equal(pool.takeAnyway(1).length, 1);
  });

  it("one that has failed is not used again; idle ones end when they are told to", async () => {
    const { pool, made } = rig(8);
    const [bad, good] = pool.take(2) ?? [];
    assert.ok(bad !== undefined && good !== undefined);
    const [failed, sound] = [bad, good] as unknown as FakeThread[];
    assert.ok(failed !== undefined && sound !== undefined);
    failed.isBroken = true;
    pool.giveBack(bad);
    pool.giveBack(good);
    assert.deepEqual([pool.size, failed.hasEnded, sound.hasEnded], [1, true, false]);
    await pool.endIdle();
    assert.deepEqual([pool.size, made.every(({ hasEnded }) => hasEnded)], [0, true]);
  });

  it("warm threads are there, also above the most", async () => {
    const { pool, made } = rig(1);
    await pool.warm(3);
    assert.deepEqual([made.length, pool.most, pool.take(3)?.length], [3, 3, 3]);
  });
});
