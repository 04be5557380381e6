// Needs: nothing. A balloon saved half inflated, with a buffer for statistics in its hands, and restored.
import assert from "node:assert/strict";
import {
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
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saveQuiet } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const FEATURES = [VIRTIO_BALLOON_F_STATS_VQ, VIRTIO_BALLOON_F_PAGE_REPORTING, VIRTIO_RING_F_EVENT_IDX];
const LIST = 0x30_0000;
const STATISTICS = 0x20_0000;
const PAGE = 4096;

interface Side {
  readonly device: BalloonDevice;
  readonly statistics: BalloonStatistics[];
  /** Page numbers given back. */
  readonly released: number[];
}

function side(loop: FakeLoop, options: Partial<BalloonDeviceOptions> = {}): Side {
  const statistics: BalloonStatistics[] = [];
  const released: number[] = [];
  const pages = {
    release: (gpa: number, length: number): number => {
      for (let at = gpa; at < gpa + length; at += PAGE) released.push(at / PAGE);
      return 0;
    },
    explain: String,
  };
  const device = new BalloonDevice({
    ...{ name: "balloon0", pages, pageReporting: true, loop, report: () => undefined },
    onStatistics: (report) => statistics.push(report),
    ...options,
  });
  return { device, statistics, released };
}

function rig(options: Partial<BalloonDeviceOptions> = {}): VirtioMachine & Side & { queues: readonly DriverQueue[] } {
  const loop = new FakeLoop();
  const parts = side(loop, options);
  const machine = virtioMachine(parts.device, loop);
  return Object.assign(machine, parts, { queues: machine.driver.start({ features: FEATURES }) });
}

function queueOf(queues: readonly DriverQueue[], index: number): DriverQueue {
  const queue = queues[index];
  assert.ok(queue !== undefined);
  return queue;
}

describe("balloon: state", function () {
  this.timeout(20_000);

  it("a chain cut off in its middle is finished after the restore, and given back once", async () => {
    const m = rig();
    const inflate = queueOf(m.queues, 0);
    const count = 6000;
    // No two are neighbours: each is a call.
    for (let i = 0; i < count; i++) m.memory.writeU32(LIST + 4 * i, (i * 2) % 1000);
    const head = inflate.add([{ gpa: LIST, length: 4 * count }]);
    m.driver.notify(0);
    assert.ok(m.released.length < count && m.released.length > 0);
    const state = await saveQuiet(m);
    assert.equal(inflate.collect().length, 0);
    const other = side(m.loop);
    restoredMachine(state, other.device, m.loop, m.memory);
    m.loop.settle();
    assert.deepEqual(inflate.collect(), [{ id: head, length: 0 }]);
    assert.equal(other.released.length, count);
  });

  it("target and size go on, and a change of the target is told as before", async () => {
    const m = rig({ targetBytes: 8 * PAGE });
    m.device.setTarget(5 * PAGE);
    m.transport.write(VIRTIO_MMIO_CONFIG + 4, 4, 3);
    m.driver.takeInterrupt();
    const other = side(m.loop, { targetBytes: 8 * PAGE });
    const machine = restoredMachine(await saveQuiet(m), other.device, m.loop, m.memory);
    assert.deepEqual([machine.driver.readConfigU32(0), machine.driver.readConfigU32(4)], [5, 3]);
    assert.deepEqual([other.device.targetBytes, other.device.actualBytes], [5 * PAGE, 3 * PAGE]);
    other.device.setTarget(6 * PAGE);
    assert.equal(machine.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
  });

  it("the buffer for statistics that it held is asked for again, and no report while it is quiet", async () => {
    const m = rig();
    const queue = queueOf(m.queues, 2);
    m.memory.writeU16(STATISTICS, 4);
    m.memory.slice(STATISTICS + 2, 8).set(Uint8Array.of(1, 2));
    const head = queue.add([{ gpa: STATISTICS, length: 10 }]);
    m.driver.notify(2);
    assert.deepEqual(m.statistics, [{ freeMemory: 0x201 }]);
    const state = await saveQuiet(m);
    assert.equal(m.device.requestStatistics(), false);
    assert.equal(queue.collect().length, 0);
    const other = side(m.loop);
    const machine = restoredMachine(state, other.device, m.loop, m.memory);
    assert.equal(other.device.requestStatistics(), true);
    assert.deepEqual(queue.collect(), [{ id: head, length: 0 }]);
    assert.equal(other.device.requestStatistics(), false);
    queue.publish(head);
    machine.driver.notify(2);
    assert.equal(other.device.requestStatistics(), true);
    assert.equal(queue.collect().length, 1);
  });

  it("the same device can be asked again when it goes on", async () => {
    const m = rig();
    queueOf(m.queues, 2).add([{ gpa: STATISTICS, length: 10 }]);
    m.driver.notify(2);
    await saveQuiet(m);
    assert.equal(m.device.requestStatistics(), false);
    m.transport.unquiesce();
    assert.equal(m.device.requestStatistics(), true);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const m = rig();
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    assertMutationsRefused(await saveQuiet(m), "state", (changed) => {
      const loop = new FakeLoop();
      const machine = virtioMachine(side(loop).device, loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
      loop.settle();
    });
  });
});
