// The socket device under packets that are nearly right, host programs that come and go at any
// moment, and resets in the middle. What is counted by both sides must agree.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import { Writer } from "../../../devices/virtio/cursor.js";
import { Segments } from "../../../devices/virtio/segments.js";
import type { HostStream, StreamEvents } from "../../../devices/virtio/vsock/backend.js";
import { CONNECTION_BUFFER_BYTES } from "../../../devices/virtio/vsock/connection.js";
import { VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE } from "../../../devices/virtio/vsock/constants.js";
import { VsockDevice } from "../../../devices/virtio/vsock/device.js";
import { VsockHeader } from "../../../devices/virtio/vsock/header.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeStream, FakeStreams } from "../../helpers/fake-streams.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x2_0000;
const CID = 5;
const MAX_CONNECTIONS = 4;
/** A turn of both queues: 64 packets each of a queue of 16, a walk, a header and its data each. */
const LIMITS = { count: 100, maxAccesses: 130 * 250 };

/** A host program that keeps the rules and checks that the device does. */
class CheckedStream extends FakeStream {
  /** `bytes` written that have not been reported as sent. */
  waiting = 0;

  override write(bytes: Uint8Array): void {
    assert.ok(!this.isDestroyed && !this.isEnded, "written to after its end");
    assert.ok(bytes.length > 0);
    this.waiting += bytes.length;
    assert.ok(this.waiting <= CONNECTION_BUFFER_BYTES, "more than the buffer holds");
  }
  override end(): void {
    assert.ok(!this.isEnded, "ended twice");
    super.end();
  }
  override destroy(): void {
    assert.ok(!this.isDestroyed, "destroyed twice");
    super.destroy();
  }
}

class CheckedStreams extends FakeStreams {
  readonly streams: CheckedStream[] = [];

  override connect(_port: number, events: StreamEvents): HostStream {
    const stream = new CheckedStream();
    stream.events = events;
    this.streams.push(stream);
    return stream;
  }

  override open(guestPort: number): FakeStream | undefined {
    const stream = new CheckedStream();
    stream.events = this.acceptor?.open(guestPort, stream);
    if (stream.events !== undefined) this.streams.push(stream);
    return stream;
  }
}

function writePacket(memory: HostileMemory, gpa: number, fields: Partial<VsockHeader>): void {
  const segments = new Segments(1);
  segments.append(gpa, 44);
  const writer = new Writer(memory);
  writer.start(segments);
  Object.assign(new VsockHeader(), fields).write(writer);
}

/** Mostly right: a few ports, so that packets meet connections. */
export function publishPacket(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  memory.asGuest(() => {
    const length = random.pick([0, 0, 1, 100, random.below(3000)]);
    const gpa = memory.at(random.below(RAM - 44 - length), 44 + length);
    writePacket(memory, gpa, {
      sourceCid: random.oneIn(20) ? random.value() : CID,
      destinationCid: random.oneIn(20) ? random.value() : 2,
      sourcePort: random.below(3),
      destinationPort: random.oneIn(2) ? random.below(2) : 2 ** 30 + 1 + random.below(4),
      length: random.oneIn(10) ? random.value() : length,
      type: random.oneIn(20) ? random.value() & 0xffff : 1,
      operation: random.oneIn(10) ? random.value() & 0xffff : random.below(8),
      flags: random.oneIn(10) ? random.value() : random.below(4),
      bufferSize: random.oneIn(3) ? random.value() : 65536,
      forwarded: random.oneIn(3) ? random.value() : 0,
    });
    const index = random.below(queue.size);
    const given = random.oneIn(10) ? random.below(44 + length) : 44 + length;
    queue.writeDescriptor(index, { gpa, length: given, flags: 0, next: 0 });
    queue.publish(index);
  });
}

export function publishBuffer(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  memory.asGuest(() => {
    const length = random.oneIn(20) ? random.below(60) : random.pick([45, 100, 4096]);
    const index = random.below(queue.size);
    queue.writeDescriptor(index, { gpa: memory.at(random.below(RAM - length), length), length, flags: 2, next: 0 });
    queue.publish(index);
  });
}

/** One thing that a host program does, if its stream is still there. */
function actAsProgram(random: Random, stream: CheckedStream): void {
  const { events } = stream;
  if (events === undefined || stream.isDestroyed) return;
  switch (random.below(6)) {
    case 0:
      events.connected();
      break;
    case 1: {
      const length = random.below(stream.waiting + 1);
      stream.waiting -= length;
      events.sent(length);
      break;
    }
    case 2:
      events.ended();
      break;
    case 3:
      if (random.oneIn(3)) events.closed(random.oneIn(2));
      break;
    default:
      if (!stream.isPaused) events.data(new Uint8Array(random.pick([0, 1, 100, 5000, 70_000])));
  }
}

export const vsockTarget: FuzzTarget = {
  name: "vsock",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    const backend = new CheckedStreams();
    const device = new VsockDevice({
      name: "vsock0",
      backend,
      guestCid: CID,
      maxConnections: MAX_CONNECTIONS,
      loop,
    });
    const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
    const start = (): readonly [DriverQueue, DriverQueue] => {
      const features = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC].filter(() => random.oneIn(2));
      const [rxq, txq] = driver.start({ features, queueSize: 2 ** random.below(5) });
      assert.ok(rxq !== undefined && txq !== undefined, "no queue after reset");
      return [rxq, txq];
    };
    let queues = start();
    memory.changeOneIn = random.pick([0, 0, 5, 50]);

    const operations: readonly (() => void)[] = [
      () => publishPacket(random, memory, queues[1]),
      () => publishPacket(random, memory, queues[1]),
      () => publishBuffer(random, memory, queues[0]),
      () => publishBuffer(random, memory, queues[0]),
      () => transport.notify(random.below(4)),
      () => transport.notify(1),
      () => void loop.turn(),
      () => loop.advance(random.pick([1, 100, 2000])),
      () => void backend.open(random.below(3)),
      () => {
        if (backend.streams.length > 0) actAsProgram(random, random.pick(backend.streams));
      },
      () => {
        if (backend.streams.length > 0) actAsProgram(random, random.pick(backend.streams));
      },
      () => {
        if (random.oneIn(4)) publishChain(random, memory, random.pick(queues));
      },
      ...troubles(
        random,
        memory,
        driver,
        { disturb: 4, restart: 6, reset: 10 },
        {
          queue: () => random.pick(queues),
          restart: () => (queues = start()),
        },
      ),
    ];
    runOperations(random, memory, operations, LIMITS, () => {
      assert.ok(device.connectionCount <= MAX_CONNECTIONS, `${String(device.connectionCount)} connections`);
      const living = backend.streams.filter(({ isDestroyed }) => !isDestroyed).length;
      assert.ok(living <= device.connectionCount, `${String(living)} streams`);
    });

    memory.changeOneIn = 0;
    driver.reset();
    assert.ok(
      backend.streams.every(({ isDestroyed }) => isDestroyed),
      "a stream outlives the reset",
    );
    assert.equal(loop.timerCount, 0, "a timer outlives the reset");
    backend.streams.length = 0;
    const [rxq, txq] = start();
    const answer = driver.allocate(64);
    rxq.add([{ gpa: answer, length: 64, writable: true }]);
    driver.notify(0);
    const gpa = driver.allocate(44);
    writePacket(memory, gpa, {
      sourceCid: CID,
      destinationCid: 2,
      sourcePort: 9,
      destinationPort: 9,
      type: 1,
      operation: VIRTIO_VSOCK_OP_REQUEST,
    });
    txq.add([{ gpa, length: 44 }]);
    driver.notify(1);
    backend.streams[0]?.events?.connected();
    loop.settle();
    assert.equal(rxq.collect()[0]?.length, 44, "does not work after reset");
    assert.equal(memory.readU16(answer + 30), VIRTIO_VSOCK_OP_RESPONSE);
  },
};
