// The socket device that a kernel serves, under broken rings, pauses and resets: the kernel is told of rings in RAM alone, and of
// nothing while it has none.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import type { VsockVhost } from "../../../devices/virtio/vsock/vhost.js";
import { VhostVsockDevice } from "../../../devices/virtio/vsock/vhost-device.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x1_0000;
/** The event queue has one event to give out, and the others are looked at when the kernel lets go of them. */
const LIMITS = { count: 60, maxAccesses: 200 };

export const vhostVsockTarget: FuzzTarget = {
  name: "vhost-vsock",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    let serves = false;
    const vhost: VsockVhost = {
      start: (_, queues) => {
        assert.ok(!serves, "it has the queues already");
        for (const { size, descriptorGpa, availableGpa, usedGpa } of queues) {
          assert.ok(memory.contains(descriptorGpa, 16 * size));
          assert.ok(memory.contains(availableGpa, 6 + 2 * size) && memory.contains(usedGpa, 6 + 8 * size));
        }
        serves = !random.oneIn(8);
        return serves ? undefined : "EFAULT";
      },
      kick: (queueIndex) => assert.ok(serves && queueIndex < 2),
      relay: () => undefined,
      stop: () => {
        assert.ok(serves, "it has no queues");
        serves = false;
      },
    };
    const device = new VhostVsockDevice({ name: "vsock0", vhost, guestCid: 3, loop });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const start = (): readonly DriverQueue[] => {
      const features = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC].filter(() => random.oneIn(2));
      const queues = driver.start({ features, queueSize: 2 ** random.below(5) });
      assert.equal(queues.length, 3, "no queue after reset");
      return queues;
    };
    let queues = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);

    const operations: readonly (() => void)[] = [
      () => publishChain(random, memory, random.pick(queues)),
      () => transport.notify(random.below(4)),
      () => driver.stopQueue(random.below(4)),
      () => void transport.quiesce(),
      () => transport.unquiesce(),
      () => device.followPages(random.oneIn(2)),
      () => device.relayInterrupts(random.oneIn(2)),
      () => loop.advance(random.pick([1, 1000])),
      () => void loop.turn(),
      ...troubles(
        random,
        memory,
        driver,
        { disturb: 2, restart: 4, reset: 6 },
        {
          queue: () => random.pick(queues),
          restart: () => (queues = start()),
        },
      ),
    ];
    runOperations(random, memory, operations, LIMITS);

    memory.changeOneIn = 0;
    driver.reset();
    assert.ok(!serves, "the kernel has the queues after a reset");
    assert.equal(loop.timerCount, 0, "a timer outlives the reset");
  },
};
