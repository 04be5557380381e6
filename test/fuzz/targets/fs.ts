// The file system device under broken chains and resets: its server is told of rings in RAM alone, and what the device
// answers itself, once that has gone, stays within the driver's buffers.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import type { FsBackend } from "../../../devices/virtio/fs/backend.js";
import { FsDevice } from "../../../devices/virtio/fs/device.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x1_0000;
/** A turn: 64 requests, each a walk, a number and an answer over as many segments. */
const LIMITS = { count: 40, maxAccesses: 65 * 140 };

export const fsTarget: FuzzTarget = {
  name: "fs",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    const serves = new Set<number>();
    let notified: (queueIndex: number) => void = () => undefined;
    const backend: FsBackend = {
      onLost: undefined,
      start: (_, queues) => {
        queues.forEach((addresses, index) => {
          if (addresses === undefined) return;
          const { size, descriptorGpa, availableGpa, usedGpa } = addresses;
          assert.ok(memory.contains(descriptorGpa, 16 * size));
          assert.ok(memory.contains(availableGpa, 6 + 2 * size) && memory.contains(usedGpa, 6 + 8 * size));
          serves.add(index);
        });
      },
      kick: (queueIndex) => assert.ok(serves.has(queueIndex)),
      stopQueue: (queueIndex) => void serves.delete(queueIndex),
      relay: () => undefined,
      hearNotifications: (callback) => (notified = callback),
    };
    const device = new FsDevice({ name: "share0", tag: Buffer.from("tag"), backend });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const start = (): DriverQueue => {
      const features = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC].filter(() => random.oneIn(2));
      const [, queue] = driver.start({ features, queueSize: 2 ** random.below(5) });
      assert.ok(queue !== undefined, "no queue after reset");
      return queue;
    };
    let queue = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);
    let isLost = false;

    const operations: readonly (() => void)[] = [
      () => publishChain(random, memory, queue),
      () => publishChain(random, memory, queue),
      () => transport.notify(random.below(3)),
      () => {
        if (isLost || !random.oneIn(4)) return;
        isLost = true;
        backend.onLost?.();
      },
      () => {
        notified(1);
      },
      () => void loop.turn(),
      ...troubles(
        random,
        memory,
        driver,
        { disturb: 2, restart: 4, reset: 6 },
        {
          queue: () => queue,
          restart: () => (queue = start()),
        },
      ),
    ];
    runOperations(random, memory, operations, LIMITS);
  },
};
