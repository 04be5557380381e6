// The console under broken chains, a host that stops and goes, input of any amount and resets.
import assert from "node:assert/strict";
import { VIRTIO_CONSOLE_F_SIZE } from "../../../devices/virtio/console/constants.js";
import { CONSOLE_INPUT_BYTES, ConsoleDevice } from "../../../devices/virtio/console/device.js";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x1_0000;
/** A turn: 64 chains of a queue of 16, each a walk and a window a segment. */
const LIMITS = { count: 60, maxAccesses: 65 * 120 };

export const consoleTarget: FuzzTarget = {
  name: "console",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    let isStopped = false;
    let output = 0;
    const device: ConsoleDevice = new ConsoleDevice({
      name: "console0",
      host: {
        transmit: (bytes) => {
          assert.ok(!isStopped, "output although the host wanted no more");
          assert.ok(bytes.length > 0);
          output += bytes.length;
          isStopped = random.oneIn(4);
          return !isStopped;
        },
        roomAvailable: () => {
          if (random.oneIn(2)) device.receive(new Uint8Array(random.below(100)));
        },
      },
    });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const features = [VIRTIO_CONSOLE_F_SIZE, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC];
    const start = (): readonly DriverQueue[] =>
      driver.start({ features: features.filter(() => random.oneIn(2)), queueSize: 2 ** random.below(5) });
    let queues = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);
    const outputReady = (): void => {
      isStopped = false;
      device.outputReady();
    };

    const operations: readonly (() => void)[] = [
      () => publishChain(random, memory, random.pick(queues)),
      () => publishChain(random, memory, random.pick(queues)),
      () => transport.notify(random.below(3)),
      () => transport.notify(1),
      () => void loop.turn(),
      outputReady,
      () => {
        const length = random.pick([0, 1, 100, CONSOLE_INPUT_BYTES, CONSOLE_INPUT_BYTES + 1]);
        const taken = device.receive(new Uint8Array(length));
        assert.ok(taken >= 0 && taken <= length);
      },
      () => device.resize({ columns: random.value(), rows: random.value() }),
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
    assert.equal(device.counters.outputBytes, output);

    memory.changeOneIn = 0;
    queues = start();
    const transmitq = queues[1];
    assert.ok(transmitq !== undefined, "no queue after reset");
    transmitq.add([{ gpa: driver.allocate(10), length: 10 }]);
    const before = output;
    driver.notify(1);
    for (let turns = 0; turns < 10; turns++) {
      outputReady();
      loop.turn();
    }
    assert.equal(output, before + 10, "does not work after reset");
    assert.equal(transmitq.collect().length, 1);
  },
};
