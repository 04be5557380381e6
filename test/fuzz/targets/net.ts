// The network device under broken chains, frames of any length, a host that is busy, fails or stops,
// limiters and resets in the middle.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
} from "../../../devices/virtio/net/constants.js";
import { NetDevice } from "../../../devices/virtio/net/device.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import type { DriverBuffer, DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { frameOf, MemoryNet } from "../../helpers/memory-net.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x2_0000;
/** A turn: 128 frames, each a walk and a window a segment of a queue of 16, and what is held besides. */
const LIMITS = { count: 60, maxAccesses: 129 * 200 };
const FEATURES = [
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
];

/** A network that checks what it is given. */
class CheckedNet extends MemoryNet {
  readonly #memory: HostileMemory;

  constructor(memory: HostileMemory) {
    super(memory);
    this.#memory = memory;
  }

  override send(frame: Segments): number {
    assert.ok(frame.byteLength >= 12 + 14 && frame.byteLength <= 12 + 65_553, String(frame.byteLength));
    this.sent.length = 0;
    return super.send(frame);
  }

  override receive(buffers: Segments): number {
    let total = 0;
    for (let index = 0; index < buffers.count; index++) {
      const length = buffers.lengths[index] ?? 0;
      assert.ok(length > 0 && this.#memory.contains(buffers.gpas[index] ?? 0, length));
      total += length;
    }
    assert.ok(total >= 12 && total === buffers.byteLength, `${String(total)} of ${String(buffers.byteLength)}`);
    return super.receive(buffers);
  }
}

export function publishBuffers(random: Random, memory: HostileMemory, queue: DriverQueue, isWritable: boolean): void {
  memory.asGuest(() => {
    const length = random.pick([12, 26, 60, 72, 1526, 2048, random.below(3000)]);
    const buffers: DriverBuffer = { gpa: memory.at(random.below(RAM - length), length), length };
    const flags = isWritable ? 2 : 0;
    const index = random.below(queue.size);
    queue.writeDescriptor(index, { ...buffers, flags, next: 0 });
    queue.publish(index);
  });
}

export const netTarget: FuzzTarget = {
  name: "net",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    const net = new CheckedNet(memory);
    const limit = { size: random.pick([0, 1, 2000]), oneTimeBurst: random.below(3), refillTimeMs: random.below(20) };
    const rateLimiter = random.oneIn(2) ? { bandwidth: limit, operations: limit } : undefined;
    const device = new NetDevice({
      name: "net0",
      backend: net,
      mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
      rxRateLimiter: rateLimiter,
      txRateLimiter: rateLimiter,
      loop,
      report: () => undefined,
    });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const start = (features = FEATURES.filter(() => random.oneIn(2))): readonly [DriverQueue, DriverQueue] => {
      const [rxq, txq] = driver.start({ features, queueSize: 2 ** random.below(5) });
      assert.ok(rxq !== undefined && txq !== undefined, "no queue after reset");
      return [rxq, txq];
    };
    let queues = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);

    const operations: readonly (() => void)[] = [
      () => publishBuffers(random, memory, queues[0], !random.oneIn(8)),
      () => publishBuffers(random, memory, queues[0], true),
      () => publishBuffers(random, memory, queues[1], random.oneIn(8)),
      () => publishChain(random, memory, random.pick(queues)),
      () => transport.notify(random.below(3)),
      () => transport.notify(random.below(2)),
      () => net.arrive(frameOf(random.pick([0, 13, 14, 60, 1500, random.below(5000)]))),
      () => net.arrive(),
      () => loop.advance(random.below(30)),
      () => void loop.turn(),
      () => (net.sendResult = random.oneIn(2) ? undefined : random.pick([0, -5])),
      () => (net.receiveError = random.pick([0, 0, 77])),
      () => device.setLink(random.oneIn(2)),
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

    memory.changeOneIn = 0;
    net.sendResult = undefined;
    net.receiveError = 0;
    net.waiting.length = 0;
    device.setLink(true);
    loop.advance(1e6);
    queues = start([]);
    const [rxq, txq] = queues;
    const gpa = driver.allocate(100);
    const frame = frameOf(60);
    memory.slice(gpa, 72).set(frame);
    txq.add([{ gpa, length: 72 }]);
    driver.notify(1);
    for (let turns = 0; turns < 5; turns++) loop.advance(1e6);
    assert.deepEqual(net.sent.at(-1), frame, "does not send after reset");
    assert.equal(txq.collect().length, 1);
    memory.slice(gpa, 100).fill(0);
    rxq.add([{ gpa, length: 100, writable: true }]);
    driver.notify(0);
    net.arrive(frame);
    for (let turns = 0; turns < 5; turns++) loop.advance(1e6);
    assert.equal(rxq.collect()[0]?.length, 72, "does not receive after reset");
    frame[10] = 1;
    assert.deepEqual(memory.slice(gpa, 72), frame);
  },
};
