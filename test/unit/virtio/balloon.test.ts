// Needs: nothing; 64 MiB of memory for the last test.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
  VIRTIO_BALLOON_F_FREE_PAGE_HINT,
  VIRTIO_BALLOON_F_PAGE_REPORTING,
  VIRTIO_BALLOON_F_STATS_VQ,
} from "../../../devices/virtio/balloon/constants.js";
import { BalloonDevice, type BalloonDeviceOptions } from "../../../devices/virtio/balloon/device.js";
import type { BalloonStatistics } from "../../../devices/virtio/balloon/statistics.js";
import {
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_RING_F_EVENT_IDX,
} from "../../../devices/virtio/constants.js";
import { hasFeature } from "../../../devices/virtio/features.js";
import { MappedGuestPages } from "../../../vmm/virtio/backends/guest-pages.js";
import { MappedGuestMemory } from "../../../vmm/memory/guest-memory.js";
import { MIB } from "../../../vmm/memory/layout.js";
import { viewMemory } from "../../../vmm/sys/memory.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const ALL = [
  VIRTIO_BALLOON_F_STATS_VQ,
  VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
  VIRTIO_BALLOON_F_PAGE_REPORTING,
  VIRTIO_RING_F_EVENT_IDX,
];
const LIST = 0x30_0000;
const PAGE = 4096;

interface Rig extends VirtioMachine {
  readonly device: BalloonDevice;
  /** Ranges given back: first page and count. */
  readonly released: (readonly [page: number, count: number])[];
  /** Answer of the host. */
  error: number;
  readonly statistics: BalloonStatistics[];
  readonly queues: readonly DriverQueue[];
}

function rig(options: Partial<BalloonDeviceOptions> & { features?: readonly number[] } = {}): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const released: (readonly [number, number])[] = [];
  const statistics: BalloonStatistics[] = [];
  const log: string[] = [];
  const pages = {
    release: (gpa: number, length: number): number => {
      assert.ok(gpa % PAGE === 0 && length % PAGE === 0 && length > 0);
      released.push([gpa / PAGE, length / PAGE]);
      return m.error;
    },
    explain: (error: number) => `error ${String(error)}`,
  };
  const device = new BalloonDevice({
    name: "balloon0",
    pages,
    deflateOnOom: true,
    pageReporting: true,
    onStatistics: (report) => statistics.push(report),
    loop,
    report: (line) => log.push(line),
    ...options,
  });
  const machine = virtioMachine(device, loop, memory);
  const queues = machine.driver.start({ features: options.features ?? ALL });
  const m: Rig = Object.assign(machine, { device, released, error: 0, statistics, queues, log });
  return m;
}

function queueOf(m: Rig, index: number): DriverQueue {
  const queue = m.queues[index];
  assert.ok(queue !== undefined);
  return queue;
}

function sendPages(m: Rig, queueIndex: number, pfns: readonly number[], cut = 4 * pfns.length): void {
  pfns.forEach((pfn, index) => m.memory.writeU32(LIST + 4 * index, pfn));
  const rest = 4 * pfns.length - cut;
  const buffers = [{ gpa: LIST, length: cut }, ...(rest > 0 ? [{ gpa: LIST + cut, length: rest }] : [])];
  queueOf(m, queueIndex).add(buffers);
  m.driver.notify(queueIndex);
}

describe("balloon", () => {
  it("has the queues and features that were asked for", () => {
    const plain = rig({ deflateOnOom: false, pageReporting: false, onStatistics: undefined });
    assert.equal(plain.queues.length, 2);
    assert.equal(plain.device.offeredFeatures, 0n);
    const all = rig();
    assert.equal(all.queues.length, 4);
    for (const bit of ALL.slice(0, 3)) assert.equal(hasFeature(all.device.offeredFeatures, bit), true);
  });

  it("the target is in the configuration, and a change is told to the driver", () => {
    const m = rig({ targetBytes: 3 * PAGE });
    assert.equal(m.driver.readConfigU32(0), 3);
    m.device.setTarget(MIB);
    assert.equal(m.driver.readConfigU32(0), 256);
    assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    for (const bytes of [-PAGE, 1, PAGE / 2, 2 ** 44, NaN]) assert.throws(() => m.device.setTarget(bytes), RangeError);
    assert.equal(m.driver.readConfigU32(0), 256);
  });

  it("the driver says how much it has given up, and may write nothing else", () => {
    const m = rig({ targetBytes: PAGE });
    m.transport.write(VIRTIO_MMIO_CONFIG + 4, 4, 7);
    assert.equal(m.device.actualBytes, 7 * PAGE);
    assert.equal(m.driver.readConfigU32(4), 7);
    m.transport.write(VIRTIO_MMIO_CONFIG, 4, 7);
    m.transport.write(VIRTIO_MMIO_CONFIG + 4, 2, 9);
    assert.equal(m.driver.readConfigU32(0), 1);
    assert.equal(m.device.actualBytes, 7 * PAGE);
    m.driver.reset();
    assert.equal(m.device.actualBytes, 0);
  });

  it("inflate: neighbours are given back together, up or down", () => {
    const m = rig();
    sendPages(m, 0, [10, 11, 12, 20, 19, 18, 30, 18]);
    assert.deepEqual(m.released, [
      [10, 3],
      [18, 3],
      [30, 1],
      [18, 1],
    ]);
    assert.deepEqual(
      queueOf(m, 0)
        .collect()
        .map(({ length }) => length),
      [0],
    );
    assert.equal(m.device.counters.inflatedPages, 8);
    assert.equal(m.device.counters.releasedBytes, 8 * PAGE);
  });

  it("inflate: a page number may lie over two descriptors", () => {
    const m = rig();
    sendPages(m, 0, [5, 7], 6);
    assert.deepEqual(m.released, [
      [5, 1],
      [7, 1],
    ]);
  });

  it("inflate: pages that are not RAM are counted, and split what is around them", () => {
    const m = rig();
    const pages = MACHINE_MEMORY_SIZE / PAGE;
    sendPages(m, 0, [pages - 1, pages, 0xffff_ffff, 1]);
    assert.deepEqual(m.released, [
      [pages - 1, 1],
      [1, 1],
    ]);
    assert.equal(m.device.counters.badPages, 2);
  });

  it("inflate: a long list is served over several turns", () => {
    const m = rig();
    for (let index = 0; index < 10_000; index++) m.memory.writeU32(LIST + 4 * index, 2 * (index % 300));
    queueOf(m, 0).add([{ gpa: LIST, length: 40_003 }]);
    m.driver.notify(0);
    assert.equal(m.released.length, 4096);
    assert.equal(queueOf(m, 0).collect().length, 0);
    assert.equal(m.loop.turn(), true);
    assert.equal(queueOf(m, 0).collect().length, 0);
    m.loop.settle();
    assert.equal(m.released.length, 10_000);
    assert.equal(queueOf(m, 0).collect().length, 1);
  });

  it("inflate: a slow host ends the turn", () => {
    const m = rig();
    const push = m.released.push.bind(m.released);
    m.released.push = (...ranges) => {
      m.loop.advance(1);
      return push(...ranges);
    };
    for (let index = 0; index < 8; index++) {
      m.memory.writeU32(LIST + 4 * index, 4 * index);
      queueOf(m, 0).add([{ gpa: LIST + 4 * index, length: 4 }]);
    }
    m.driver.notify(0);
    assert.equal(queueOf(m, 0).collect().length, 2);
    m.loop.settle();
    assert.equal(m.released.length, 8);
  });

  it("a host that cannot give pages back: a counter, a line, and the guest goes on", () => {
    const m = rig();
    m.error = 22;
    sendPages(m, 0, [1, 3]);
    assert.equal(m.device.counters.hostErrors, 2);
    assert.equal(m.device.counters.releasedBytes, 0);
    assert.deepEqual(m.log, ["balloon0: Pages cannot be given back: error 22"]);
    assert.equal(queueOf(m, 0).collect().length, 1);
  });

  it("deflate: the guest has its pages back, the host does nothing", () => {
    const m = rig();
    sendPages(m, 1, [1, 2, 3]);
    assert.equal(m.device.counters.deflatedPages, 3);
    assert.equal(queueOf(m, 1).collect().length, 1);
    assert.deepEqual(m.released, []);
  });

  it("free page reporting: whole pages of what is reported, before it is given back", () => {
    const m = rig();
    queueOf(m, 3).add([
      { gpa: 0x10_0000, length: 0x4000, writable: true },
      { gpa: 0x20_0800, length: 0x2000, writable: true },
      { gpa: 0x28_0001, length: 0x1000, writable: true },
    ]);
    m.driver.notify(3);
    assert.deepEqual(m.released, [
      [0x100, 4],
      [0x201, 1],
    ]);
    assert.equal(queueOf(m, 3).collect()[0]?.length, 0);
    assert.equal(m.device.counters.reportedBytes, 5 * PAGE);
  });

  it("queues are counted by what the driver has accepted", () => {
    const m = rig({ features: [VIRTIO_BALLOON_F_PAGE_REPORTING] });
    queueOf(m, 2).add([{ gpa: 0x10_0000, length: 0x1000, writable: true }]);
    m.driver.notify(2);
    assert.deepEqual(m.released, [[0x100, 1]]);
    assert.equal(m.device.requestStatistics(), false);
  });

  it("statistics: the driver's first, then one for every request", () => {
    const m = rig();
    assert.equal(m.device.requestStatistics(), false);
    const entries: readonly (readonly [number, bigint])[] = [
      [4, 1_000_000n],
      [5, 2_000_000n],
      [6, 1_500_000n],
      [77, 1n],
      [0, 3n],
    ];
    entries.forEach(([tag, value], index) => {
      m.memory.writeU16(LIST + 10 * index, tag);
      m.memory.writeU64(LIST + 10 * index + 2, value);
    });
    const queue = queueOf(m, 2);
    queue.add([{ gpa: LIST, length: 10 * entries.length + 3 }]);
    m.driver.notify(2);
    const first = { freeMemory: 1_000_000, totalMemory: 2_000_000, availableMemory: 1_500_000, swapIn: 3 };
    assert.deepEqual(m.statistics, [first]);
    assert.deepEqual(queue.collect(), []);
    queue.wantInterrupt();
    const before = m.interrupts;
    assert.equal(m.device.requestStatistics(), true);
    assert.equal(m.device.requestStatistics(), false);
    assert.equal(m.interrupts, before + 1);
    assert.equal(queue.collect().length, 1);
    queue.add([{ gpa: LIST, length: 10 }]);
    m.driver.notify(2);
    assert.deepEqual(m.statistics[1], { freeMemory: 1_000_000 });
  });

  it("statistics: a driver that hands in a second buffer has the first one back", () => {
    const m = rig();
    const queue = queueOf(m, 2);
    const head = queue.add([{ gpa: LIST, length: 10 }]);
    queue.add([{ gpa: LIST, length: 10 }]);
    m.driver.notify(2);
    assert.deepEqual(
      queue.collect().map(({ id }) => id),
      [head],
    );
  });
});

describe("balloon: statistics by themselves", () => {
  function answer(m: Rig): number {
    const queue = queueOf(m, 2);
    const given = queue.collect().length;
    if (given > 0) queue.add([{ gpa: LIST, length: 10 }]);
    m.driver.notify(2);
    return given;
  }

  function asking(intervalMs: number): Rig {
    const m = rig({ statisticsIntervalMs: intervalMs });
    queueOf(m, 2).add([{ gpa: LIST, length: 10 }]);
    m.driver.notify(2);
    return m;
  }

  it("the driver is asked each time, if it has answered", () => {
    const m = asking(2000);
    m.loop.advance(1999);
    assert.equal(answer(m), 0);
    m.loop.advance(1);
    assert.equal(answer(m), 1);
    m.loop.advance(2000);
    // It has not answered: it is not asked again, and nothing piles up.
    m.loop.advance(20_000);
    assert.equal(answer(m), 1);
    m.loop.advance(2000);
    assert.equal(answer(m), 1);
    assert.equal(m.loop.timerCount, 1);
  });

  it("another interval counts from when it is given", () => {
    const m = asking(60_000);
    m.loop.advance(59_000);
    m.device.setStatisticsInterval(3000);
    m.loop.advance(2999);
    assert.equal(answer(m), 0);
    m.loop.advance(1);
    assert.equal(answer(m), 1);
    m.device.setStatisticsInterval(0);
    assert.equal(m.loop.timerCount, 0);
  });

  it("nobody is asked without a driver, without the feature, or while it rests", async () => {
    const m = asking(1000);
    await m.transport.quiesce();
    m.loop.advance(5000);
    m.transport.unquiesce();
    assert.equal(answer(m), 0);
    m.loop.advance(1000);
    assert.equal(answer(m), 1);
    m.driver.reset();
    assert.equal(m.loop.timerCount, 0);
    m.device.setStatisticsInterval(5);
    assert.equal(m.loop.timerCount, 0);
    assert.equal(rig({ statisticsIntervalMs: 5, features: [] }).loop.timerCount, 0);
  });
});

describe("balloon: hints of free pages", () => {
  const COMMAND = 0x32_0000;
  const HINTS = [VIRTIO_BALLOON_F_STATS_VQ, VIRTIO_BALLOON_F_FREE_PAGE_HINT, VIRTIO_BALLOON_F_PAGE_REPORTING];

  function hintingRig(features = HINTS): Rig {
    return rig({ pageHinting: true, features });
  }

  function say(m: Rig, command: number): void {
    m.memory.writeU32(COMMAND, command);
    queueOf(m, 3).add([{ gpa: COMMAND, length: 4 }]);
    m.driver.notify(3);
  }

  function handIn(m: Rig, page: number, length = 4 * PAGE): void {
    queueOf(m, 3).add([{ gpa: page * PAGE, length, writable: true }]);
    m.driver.notify(3);
  }

  it("asked, the driver hands pages in, says that it has, and is told that it may use them again", () => {
    const m = hintingRig();
    assert.deepEqual(m.device.hintingStatus, { hostCommand: 0, guestCommand: undefined });
    m.device.startHinting(true);
    assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert.equal(m.driver.readConfigU32(8), 2);
    handIn(m, 0x100);
    assert.deepEqual(m.released, [], "before the answer they may be of another request");
    say(m, 2);
    handIn(m, 0x200);
    handIn(m, 0x300, PAGE - 1);
    assert.deepEqual(m.released, [[0x200, 4]]);
    assert.deepEqual(m.device.hintingStatus, { hostCommand: 2, guestCommand: 2 });
    say(m, 0);
    assert.deepEqual(m.device.hintingStatus, { hostCommand: 1, guestCommand: 0 });
    assert.equal(m.driver.readConfigU32(8), 1);
    assert.ok((m.driver.takeInterrupt() & VIRTIO_MMIO_INT_CONFIG) !== 0);
    handIn(m, 0x280);
    assert.equal(m.released.length, 1, "after the end they are in use");
    assert.equal(queueOf(m, 3).collect().length, 6);
    assert.equal(m.device.counters.hintedBytes, 4 * PAGE);
  });

  it("the pages are kept until the end is said, if so asked", () => {
    const m = hintingRig();
    m.device.startHinting(false);
    say(m, 2);
    handIn(m, 0x100);
    say(m, 0);
    assert.deepEqual(m.device.hintingStatus, { hostCommand: 2, guestCommand: 0 });
    m.device.stopHinting();
    assert.equal(m.driver.readConfigU32(8), 1);
    m.device.startHinting(true);
    assert.equal(m.driver.readConfigU32(8), 3, "each request has a number of its own");
    say(m, 2);
    handIn(m, 0x200);
    assert.equal(m.released.length, 1, "an answer to an older request");
    m.device.stopHinting();
    say(m, 3);
    handIn(m, 0x200);
    assert.equal(m.released.length, 1);
  });

  it("an end that is no answer ends nothing", () => {
    const m = hintingRig();
    m.device.startHinting(true);
    say(m, 0);
    assert.equal(m.device.hintingStatus.hostCommand, 2);
    queueOf(m, 3).add([{ gpa: COMMAND, length: 3 }]);
    m.driver.notify(3);
    assert.equal(queueOf(m, 3).collect().length, 2);
  });

  it("a driver that cannot is not asked, a reset forgets, and the next driver's pages are its own", () => {
    const without = hintingRig([VIRTIO_BALLOON_F_STATS_VQ]);
    without.device.startHinting(true);
    assert.deepEqual([without.driver.readConfigU32(8), without.device.hintingStatus.hostCommand], [0, 0]);
    const m = hintingRig();
    m.device.startHinting(true);
    say(m, 2);
    m.driver.reset();
    assert.deepEqual(m.device.hintingStatus, { hostCommand: 0, guestCommand: undefined });
    assert.equal(m.driver.readConfigU32(8), 0);
  });
});

describe("guest pages", () => {
  const SIZE = 64 * MIB;

  function residentKib(address: number): number {
    const maps = readFileSync("/proc/self/smaps", "latin1").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    const entry = maps.find((text) => {
      const [start, end] = (text.split(" ")[0] ?? "").split("-").map((part) => parseInt(part, 16));
      return (start ?? 0) <= address && address < (end ?? 0);
    });
    return Number(/^Rss:\s+(\d+)/m.exec(entry ?? "")?.[1]);
  }

  it("what is released costs the host nothing and reads 0; the rest stays", () => {
    const memory = MappedGuestMemory.map(SIZE);
    const pages = new MappedGuestPages(memory);
    memory.slice(0, SIZE).fill(0x5a);
    const before = residentKib(memory.hostAddress);
    assert.equal(pages.release(16 * MIB, 32 * MIB), 0);
    const after = residentKib(memory.hostAddress);
    assert.ok(before - after >= 32 * 1024, `${String(before)} KiB, then ${String(after)}`);
    assert.equal(memory.readU8(16 * MIB - 1), 0x5a);
    assert.equal(memory.readU8(16 * MIB), 0);
    assert.equal(memory.readU8(48 * MIB - 1), 0);
    assert.equal(memory.readU8(48 * MIB), 0x5a);
    memory.unmap();
  });

  it("of huge pages, only whole ones are given back", () => {
    const calls: number[] = [];
    const memory = MappedGuestMemory.map(SIZE);
    try {
      const hugePageBytes = 2 * MIB;
      const base = Math.ceil(memory.hostAddress / hugePageBytes) * hugePageBytes;
      const pages = new MappedGuestPages({
        hugePageBytes,
        isWatched: true,
        hostAddressOf: (gpa) => base + gpa,
        noteWritten: (gpa) => calls.push(gpa),
      });
      new Uint8Array(viewMemory(base, 8 * MIB)).fill(0x5a);
      const read = (gpa: number): number | undefined => new Uint8Array(viewMemory(base + gpa, 1))[0];
      assert.deepEqual([pages.release(PAGE, 2 * MIB), pages.release(0, 2 * MIB - PAGE), calls], [0, 0, []]);
      assert.equal(pages.release(MIB, 4 * MIB), 0);
      assert.deepEqual(
        [read(0), read(2 * MIB - 1), read(2 * MIB), read(4 * MIB - 1), read(4 * MIB)],
        [0x5a, 0x5a, 0, 0, 0x5a],
      );
      assert.deepEqual(calls, [MIB]);
    } finally {
      memory.unmap();
    }
  });

  it("errors have names", () => {
    const pages = new MappedGuestPages({ hostAddressOf: (gpa) => gpa });
    assert.equal(pages.explain(pages.release(1, 4096)), "EINVAL");
  });
});
