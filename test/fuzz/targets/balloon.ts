// The balloon under broken lists, reports and statistics: only whole pages of RAM are given back.
import assert from "node:assert/strict";
import {
  VIRTIO_BALLOON_F_FREE_PAGE_HINT,
  VIRTIO_BALLOON_F_PAGE_REPORTING,
  VIRTIO_BALLOON_F_STATS_VQ,
} from "../../../devices/virtio/balloon/constants.js";
import { BalloonDevice } from "../../../devices/virtio/balloon/device.js";
import type { BalloonStatistics } from "../../../devices/virtio/balloon/statistics.js";
import {
  VIRTIO_MMIO_CONFIG,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x2_0000;
const PAGE = 4096;
/** A turn: 4096 page numbers that may be cut into bytes, or 64 chains. */
const LIMITS = { count: 60, maxAccesses: 4 * 4096 + 65 * 120 + 100 };

function publishPages(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  memory.asGuest(() => {
    const count = random.pick([0, 1, 5, random.below(1500)]);
    const gpa = memory.at(random.below(RAM - 4 * count - 4), 4 * count + 4);
    let pfn = random.below(RAM / PAGE);
    for (let index = 0; index < count; index++) {
      pfn = random.oneIn(10) ? random.value() : pfn + random.pick([-1, 0, 1, 1]);
      memory.writeU32(gpa + 4 * index, pfn >>> 0);
    }
    const index = random.below(queue.size);
    const length = 4 * count + random.pick([0, 0, 1, 3]);
    queue.writeDescriptor(index, { gpa, length, flags: random.oneIn(6) ? 2 : 0, next: 0 });
    queue.publish(index);
  });
}

export const balloonTarget: FuzzTarget = {
  name: "balloon",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    let failOneIn = random.pick([0, 3]);
    let released = 0;
    const onStatistics = (statistics: BalloonStatistics): void => {
      assert.ok(Object.values(statistics).every((value) => Number.isInteger(value) && value >= 0));
    };
    const device = new BalloonDevice({
      name: "balloon0",
      pages: {
        release: (gpa, length) => {
          assert.ok(gpa % PAGE === 0 && length % PAGE === 0 && length > 0, `${String(gpa)}+${String(length)}`);
          assert.ok(memory.contains(gpa, length), `${String(gpa)}+${String(length)}`);
          if (random.oneIn(10)) loop.advance(1);
          if (failOneIn !== 0 && random.oneIn(failOneIn)) return 22;
          released += length;
          return 0;
        },
        explain: String,
      },
      deflateOnOom: random.oneIn(2),
      pageReporting: random.oneIn(2),
      pageHinting: random.oneIn(2),
      statisticsIntervalMs: random.pick([0, 5]),
      onStatistics: random.oneIn(2) ? onStatistics : undefined,
      loop,
      report: () => undefined,
    });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const features = [
      VIRTIO_BALLOON_F_STATS_VQ,
      VIRTIO_BALLOON_F_FREE_PAGE_HINT,
      VIRTIO_BALLOON_F_PAGE_REPORTING,
      VIRTIO_RING_F_EVENT_IDX,
      VIRTIO_RING_F_INDIRECT_DESC,
    ];
    const start = (): readonly DriverQueue[] =>
      driver.start({ features: features.filter(() => random.oneIn(2)), queueSize: 2 ** random.below(5) });
    let queues = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);

    const operations: readonly (() => void)[] = [
      () => publishPages(random, memory, random.pick(queues)),
      () => publishPages(random, memory, random.pick(queues)),
      () => publishChain(random, memory, random.pick(queues)),
      () => transport.notify(random.below(5)),
      () => transport.notify(random.below(queues.length)),
      () => void loop.turn(),
      () => void device.requestStatistics(),
      () => device.setTarget(PAGE * random.below(100)),
      () => device.startHinting(random.oneIn(2)),
      () => device.stopHinting(),
      () => device.setStatisticsInterval(random.below(3)),
      () => loop.advance(3),
      () => transport.write(VIRTIO_MMIO_CONFIG + random.below(20), random.pick([1, 2, 4]), random.value()),
      ...troubles(
        random,
        memory,
        driver,
        { disturb: 3, restart: 4, reset: 6 },
        {
          queue: () => random.pick(queues),
          restart: () => (queues = start()),
        },
      ),
    ];
    runOperations(random, memory, operations, LIMITS);
    assert.equal(device.counters.releasedBytes, released);

    memory.changeOneIn = 0;
    failOneIn = 0;
    const [inflateq] = start();
    assert.ok(inflateq !== undefined, "no queue after reset");
    const gpa = driver.allocate(8);
    memory.writeU32(gpa, 7);
    memory.writeU32(gpa + 4, 6);
    const before = released;
    inflateq.add([{ gpa, length: 8 }]);
    driver.notify(0);
    loop.settle();
    assert.equal(released, before + 2 * PAGE, "does not work after reset");
    assert.equal(inflateq.collect().length, 1);
  },
};
