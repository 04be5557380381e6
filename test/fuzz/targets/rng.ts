// The entropy device under broken chains, limiter and resets: it fills what it was given, no more.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import { RNG_REQUEST_BYTES, RngDevice } from "../../../devices/virtio/rng/device.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x1_0000;
/** A turn: 16 requests of a queue of 16, each a walk and a window a segment. */
const LIMITS = { count: 40, maxAccesses: 17 * 120 };

export const rngTarget: FuzzTarget = {
  name: "rng",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    let filled = 0;
    const source = {
      fill: (bytes: Uint8Array): void => {
        assert.ok(bytes.length > 0 && bytes.length <= RNG_REQUEST_BYTES);
        filled += bytes.length;
      },
    };
    const limit = { size: random.pick([0, 1, 300]), oneTimeBurst: random.below(3), refillTimeMs: random.below(20) };
    const rateLimiter = random.oneIn(2) ? { bandwidth: limit, operations: limit } : undefined;
    const device = new RngDevice({ name: "rng0", source, rateLimiter, loop });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const start = (): DriverQueue => {
      const features = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC].filter(() => random.oneIn(2));
      const [queue] = driver.start({ features, queueSize: 2 ** random.below(5) });
      assert.ok(queue !== undefined, "no queue after reset");
      return queue;
    };
    let queue = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);

    const operations: readonly (() => void)[] = [
      () => publishChain(random, memory, queue),
      () => publishChain(random, memory, queue),
      () => transport.notify(0),
      () => void loop.turn(),
      () => loop.advance(random.below(30)),
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
    assert.equal(device.counters.bytes, filled);

    memory.changeOneIn = 0;
    loop.advance(1e6);
    queue = start();
    queue.add([{ gpa: driver.allocate(32), length: 32, writable: true }]);
    driver.notify(0);
    for (let turns = 0; turns < 10; turns++) {
      loop.advance(1e6);
      loop.turn();
    }
    assert.equal(queue.collect()[0]?.length, 32, "does not work after reset");
  },
};
