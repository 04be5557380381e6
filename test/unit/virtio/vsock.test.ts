// Needs: nothing.
import assert from "node:assert/strict";
import { VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_RING_F_EVENT_IDX } from "../../../devices/virtio/constants.js";
import { Reader, Writer } from "../../../devices/virtio/cursor.js";
import { Segments } from "../../../devices/virtio/segments.js";
import { CONNECTION_BUFFER_BYTES } from "../../../devices/virtio/vsock/connection.js";
import {
  VIRTIO_VSOCK_OP_CREDIT_REQUEST as CREDIT_REQUEST,
  VIRTIO_VSOCK_OP_CREDIT_UPDATE as CREDIT_UPDATE,
  VIRTIO_VSOCK_OP_REQUEST as REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE as RESPONSE,
  VIRTIO_VSOCK_OP_RST as RST,
  VIRTIO_VSOCK_OP_RW as RW,
  VIRTIO_VSOCK_OP_SHUTDOWN as SHUTDOWN,
} from "../../../devices/virtio/vsock/constants.js";
import { VsockDevice, type VsockDeviceOptions } from "../../../devices/virtio/vsock/device.js";
import { VsockHeader } from "../../../devices/virtio/vsock/header.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { FakeStreams, type FakeStream } from "../../helpers/fake-streams.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const CID = 3;
const HOST_PORT = 52;
const GUEST_PORT = 1000;
const TX = 0x20_0000;
const RX = 0x30_0000;
const RX_LENGTH = 4096;

interface Packet {
  readonly op: number;
  readonly hostPort: number;
  readonly guestPort: number;
  readonly flags: number;
  readonly bufferSize: number;
  readonly forwarded: number;
  readonly type: number;
  readonly data: number[];
}

interface Rig extends VirtioMachine {
  readonly device: VsockDevice;
  readonly streams: FakeStreams;
  rxq: DriverQueue;
  txq: DriverQueue;
}

function connectDriver(m: VirtioMachine): { rxq: DriverQueue; txq: DriverQueue } {
  const [rxq, txq] = m.driver.start({ features: [VIRTIO_RING_F_EVENT_IDX] });
  assert.ok(rxq !== undefined && txq !== undefined);
  return { rxq, txq };
}

function rig(options: Partial<VsockDeviceOptions> & { buffers?: number } = {}): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const streams = new FakeStreams();
  const device = new VsockDevice({ name: "vsock0", backend: streams, guestCid: CID, loop, ...options });
  const machine = virtioMachine(device, loop, memory);
  const m = Object.assign(machine, { device, streams, ...connectDriver(machine) });
  addBuffers(m, options.buffers ?? 32);
  return m;
}

function addBuffers(m: Rig, count: number): void {
  for (let i = 0; i < count; i++) m.rxq.add([{ gpa: RX + i * RX_LENGTH, length: RX_LENGTH, writable: true }]);
  m.driver.notify(0);
}

/** A packet of the guest, sent or only made available. */
function put(m: Rig, op: number, header: Partial<VsockHeader> = {}, data: ArrayLike<number> = []): void {
  const segments = new Segments(1);
  segments.append(TX, 44);
  const writer = new Writer(m.memory);
  writer.start(segments);
  const full = Object.assign(new VsockHeader(), {
    sourceCid: CID,
    destinationCid: 2,
    sourcePort: GUEST_PORT,
    destinationPort: HOST_PORT,
    type: 1,
    length: data.length,
    bufferSize: 65536,
    operation: op,
    ...header,
  });
  full.write(writer);
  m.memory.slice(TX + 44, data.length).set(data);
  m.txq.add([{ gpa: TX, length: 44 + data.length }]);
}

function send(m: Rig, op: number, header: Partial<VsockHeader> = {}, data: ArrayLike<number> = []): void {
  put(m, op, header, data);
  m.driver.notify(1);
  m.txq.collect();
}

/** What the device has sent to the guest; the buffers go back. */
function received(m: Rig, refill = true): Packet[] {
  const packets: Packet[] = [];
  const reader = new Reader(m.memory);
  while (m.rxq.takeUsed()) {
    const gpa = Number(m.memory.readU64(m.rxq.descriptorGpa + 16 * m.rxq.usedId));
    const segments = new Segments(1);
    segments.append(gpa, RX_LENGTH);
    reader.start(segments);
    const header = new VsockHeader();
    header.read(reader);
    assert.equal(header.sourceCid, 2);
    assert.equal(header.destinationCid, CID);
    assert.equal(m.rxq.usedLength, 44 + header.length);
    const data = [...m.memory.slice(gpa + 44, header.length)];
    packets.push({
      op: header.operation,
      hostPort: header.sourcePort,
      guestPort: header.destinationPort,
      flags: header.flags,
      bufferSize: header.bufferSize,
      forwarded: header.forwarded,
      type: header.type,
      data,
    });
    if (refill) m.rxq.publish(m.rxq.usedId);
  }
  if (refill) m.driver.notify(0);
  return packets;
}

function ops(m: Rig): number[] {
  return received(m).map(({ op }) => op);
}

/** A connection that the guest has begun, open on both sides. */
function openFromGuest(m: Rig, header: Partial<VsockHeader> = {}): FakeStream {
  send(m, REQUEST, header);
  const asked = m.streams.asked.at(-1);
  assert.ok(asked !== undefined);
  asked.events.connected();
  assert.deepEqual(ops(m), [RESPONSE]);
  return asked.stream;
}

describe("socket device: connections", () => {
  it("the guest connects to a program of the host", () => {
    const m = rig();
    send(m, REQUEST);
    assert.equal(m.streams.asked[0]?.port, HOST_PORT);
    assert.deepEqual(ops(m), []);
    m.streams.asked[0].events.connected();
    const [response] = received(m);
    assert.equal(response?.op, RESPONSE);
    assert.equal(response.hostPort, HOST_PORT);
    assert.equal(response.guestPort, GUEST_PORT);
    assert.equal(response.bufferSize, CONNECTION_BUFFER_BYTES);
    assert.equal(m.device.connectionCount, 1);
  });

  it("nobody listens on the host: RST, and the connection is forgotten", () => {
    const m = rig();
    send(m, REQUEST);
    m.streams.asked[0]?.events.closed(true);
    assert.deepEqual(ops(m), [RST]);
    assert.equal(m.device.connectionCount, 0);
  });

  it("a host program connects to the guest", () => {
    const m = rig();
    const stream = m.streams.open(GUEST_PORT);
    assert.ok(stream !== undefined);
    const [request] = received(m);
    assert.equal(request?.op, REQUEST);
    assert.equal(request.guestPort, GUEST_PORT);
    assert.ok(request.hostPort >= 2 ** 30);
    assert.deepEqual(stream.log, []);
    send(m, RESPONSE, { destinationPort: request.hostPort });
    assert.deepEqual(stream.log, [`opened ${String(request.hostPort)}`]);
    assert.equal(m.loop.timerCount, 0);
    const other = m.streams.open(GUEST_PORT);
    assert.notEqual(received(m)[0]?.hostPort, request.hostPort);
    assert.ok(other !== undefined && !other.isDestroyed);
  });

  it("the guest refuses, or does not answer: the host's stream is closed", () => {
    const m = rig();
    const refused = m.streams.open(GUEST_PORT);
    send(m, RST, { destinationPort: received(m)[0]?.hostPort ?? 0 });
    assert.equal(refused?.isDestroyed, true);
    assert.deepEqual(ops(m), []);
    const silent = m.streams.open(GUEST_PORT);
    assert.deepEqual(ops(m), [REQUEST]);
    m.loop.advance(1999);
    assert.equal(silent?.isDestroyed, false);
    m.loop.advance(1);
    assert.equal(silent.isDestroyed, true);
    assert.deepEqual(ops(m), [RST]);
    assert.equal(m.device.connectionCount, 0);
  });

  it("a request that has not reached the guest is taken back without a word", () => {
    const m = rig({ buffers: 0 });
    const stream = m.streams.open(GUEST_PORT);
    stream?.events?.closed(true);
    addBuffers(m, 4);
    assert.deepEqual(ops(m), []);
    assert.equal(m.device.connectionCount, 0);
  });

  it("too many connections are refused, from either side", () => {
    const m = rig({ maxConnections: 2 });
    openFromGuest(m);
    m.streams.open(GUEST_PORT);
    assert.deepEqual(ops(m), [REQUEST]);
    assert.equal(m.streams.open(GUEST_PORT), undefined);
    send(m, REQUEST, { sourcePort: 1001 });
    assert.deepEqual(ops(m), [RST]);
    assert.equal(m.device.counters.refusedConnections, 2);
  });

  it("without a driver there is nobody to connect to", () => {
    const m = rig();
    m.driver.reset();
    assert.equal(m.streams.open(GUEST_PORT), undefined);
  });

  it("a reset closes all streams, and the next driver starts afresh", () => {
    const m = rig();
    const stream = openFromGuest(m);
    const asked = m.streams.open(GUEST_PORT);
    m.driver.reset();
    assert.equal(stream.isDestroyed, true);
    assert.equal(asked?.isDestroyed, true);
    assert.equal(m.loop.timerCount, 0);
    stream.events?.data(Uint8Array.of(1));
    Object.assign(m, connectDriver(m));
    addBuffers(m, 4);
    assert.deepEqual(ops(m), []);
    openFromGuest(m);
  });

  it("context ids that no guest can have are refused", () => {
    for (const guestCid of [0, 2, 2.5, 2 ** 32 - 1]) assert.throws(() => rig({ guestCid }), RangeError);
    assert.equal(rig({ guestCid: 77 }).driver.readConfigU32(0), 77);
  });
});

describe("socket device: data", () => {
  it("goes to the host in order, and credit comes back", () => {
    const m = rig();
    const stream = openFromGuest(m);
    send(m, RW, {}, [1, 2, 3]);
    send(m, RW, {}, [4]);
    assert.deepEqual(stream.written, [1, 2, 3, 4]);
    assert.deepEqual(ops(m), []);
    stream.events?.sent(4);
    send(m, CREDIT_REQUEST);
    const [update] = received(m);
    assert.equal(update?.op, CREDIT_UPDATE);
    assert.equal(update.forwarded, 4);
  });

  it("the guest hears of new room before half of the buffer is used up", () => {
    const m = rig();
    const stream = openFromGuest(m);
    send(m, RW, {}, new Uint8Array(65536));
    stream.events?.sent(65535);
    assert.deepEqual(ops(m), []);
    stream.events?.sent(1);
    const [update] = received(m);
    assert.equal(update?.op, CREDIT_UPDATE);
    assert.equal(update.forwarded, 65536);
  });

  it("a guest that sends more than it may loses the connection", () => {
    const m = rig();
    const stream = openFromGuest(m);
    for (let sent = 0; sent < CONNECTION_BUFFER_BYTES; sent += 65536) send(m, RW, {}, new Uint8Array(65536));
    assert.equal(stream.isDestroyed, false);
    send(m, RW, {}, [1]);
    assert.equal(stream.isDestroyed, true);
    assert.deepEqual(ops(m), [RST]);
    assert.equal(stream.written.length, CONNECTION_BUFFER_BYTES);
    assert.equal(m.device.counters.malformed, 1);
  });

  it("goes to the guest in packets that fit its buffers", () => {
    const m = rig();
    const stream = openFromGuest(m);
    const bytes = Uint8Array.from({ length: 10_000 }, (_, index) => index);
    stream.events?.data(bytes);
    const packets = received(m);
    assert.deepEqual(
      packets.map(({ op, data }) => [op, data.length]),
      [
        [RW, 4052],
        [RW, 4052],
        [RW, 1896],
      ],
    );
    assert.deepEqual(
      packets.flatMap(({ data }) => data),
      [...bytes],
    );
  });

  it("no more than the guest has room for; then it is asked once, and goes on with its answer", () => {
    const m = rig();
    const stream = openFromGuest(m, { bufferSize: 100 });
    stream.events?.data(new Uint8Array(150));
    assert.deepEqual(
      received(m).map(({ op, data }) => [op, data.length]),
      [
        [RW, 100],
        [CREDIT_REQUEST, 0],
      ],
    );
    stream.events?.data(new Uint8Array(10));
    assert.deepEqual(ops(m), []);
    send(m, CREDIT_UPDATE, { bufferSize: 100, forwarded: 80 });
    assert.deepEqual(
      received(m).map(({ op, data }) => [op, data.length]),
      [
        [RW, 50],
        [RW, 10],
      ],
    );
  });

  it("a guest that lies about its credit gets nothing, and no harm is done", () => {
    const m = rig();
    const stream = openFromGuest(m, { bufferSize: 100, forwarded: 5000 });
    stream.events?.data(new Uint8Array(10));
    const lengths = received(m).map(({ data }) => data.length);
    assert.ok(lengths.every((length) => length <= 100));
    send(m, CREDIT_UPDATE, { bufferSize: 0, forwarded: 0 });
    stream.events?.data(new Uint8Array(10));
    assert.deepEqual(ops(m), []);
  });

  it("the host's stream is paused while the guest does not take its data", () => {
    const m = rig({ buffers: 0 });
    m.rxq.add([{ gpa: RX, length: RX_LENGTH, writable: true }]);
    send(m, REQUEST, { bufferSize: 2 ** 31 });
    const asked = m.streams.asked[0];
    asked?.events.connected();
    assert.deepEqual(
      received(m, false).map(({ op }) => op),
      [RESPONSE],
    );
    asked?.events.data(new Uint8Array(65_535));
    assert.equal(asked?.stream.isPaused, false);
    asked.events.data(new Uint8Array(1));
    assert.equal(asked.stream.isPaused, true);
    addBuffers(m, 8);
    assert.equal(asked.stream.isPaused, true);
    received(m, false);
    addBuffers(m, 2);
    assert.equal(asked.stream.isPaused, false);
  });

  it("connections take turns", () => {
    const m = rig({ buffers: 0 });
    for (const sourcePort of [1, 2]) send(m, REQUEST, { sourcePort });
    const [a, b] = m.streams.asked;
    for (const asked of [a, b]) asked?.events.connected();
    for (const asked of [a, b]) asked?.events.data(new Uint8Array(9000));
    addBuffers(m, 6);
    assert.deepEqual(
      received(m).map(({ op, guestPort }) => [op, guestPort]),
      [
        [RESPONSE, 1],
        [RESPONSE, 2],
        [RW, 1],
        [RW, 2],
        [RW, 1],
        [RW, 2],
      ],
    );
  });
});

describe("socket device: the end of connections", () => {
  it("the host program ends its side: SHUTDOWN after its last data, and the guest may go on", () => {
    const m = rig();
    const stream = openFromGuest(m);
    stream.events?.data(Uint8Array.of(7));
    stream.events?.ended();
    assert.deepEqual(
      received(m).map(({ op, flags }) => [op, flags]),
      [
        [RW, 0],
        [SHUTDOWN, 2],
      ],
    );
    send(m, RW, {}, [9]);
    assert.deepEqual(stream.written, [9]);
    stream.events?.closed(false);
    assert.deepEqual(
      received(m).map(({ op, flags }) => [op, flags]),
      [[SHUTDOWN, 3]],
    );
    send(m, RST);
    assert.equal(m.device.connectionCount, 0);
  });

  it("the guest ends its side: the host's stream is ended and may go on", () => {
    const m = rig();
    const stream = openFromGuest(m);
    send(m, SHUTDOWN, { flags: 2 });
    send(m, SHUTDOWN, { flags: 2 });
    assert.deepEqual(stream.log, ["end"]);
    stream.events?.data(Uint8Array.of(1));
    assert.deepEqual(ops(m), [RW]);
    send(m, RW, {}, [1]);
    assert.deepEqual(ops(m), [RST]);
  });

  it("the guest ends both: RST once all it sent has reached the host", () => {
    const m = rig();
    const stream = openFromGuest(m);
    send(m, RW, {}, [1, 2, 3]);
    send(m, SHUTDOWN, { flags: 3 });
    assert.deepEqual(ops(m), []);
    assert.equal(stream.isDestroyed, false);
    stream.events?.sent(3);
    assert.deepEqual(ops(m), [RST]);
    assert.equal(stream.isDestroyed, true);
    assert.equal(m.device.connectionCount, 0);
  });

  it("the guest does not want to receive: data of the host is dropped, the stream goes on", () => {
    const m = rig();
    const stream = openFromGuest(m, { bufferSize: 0 });
    stream.events?.data(new Uint8Array(70_000));
    assert.equal(stream.isPaused, true);
    send(m, SHUTDOWN, { flags: 1 });
    assert.equal(stream.isPaused, false);
    stream.events?.data(new Uint8Array(70_000));
    assert.equal(stream.isPaused, false);
    send(m, RW, {}, [5]);
    assert.deepEqual(stream.written, [5]);
  });

  it("RST of the guest closes the stream without an answer; a failure of the host is an RST", () => {
    const m = rig();
    const stream = openFromGuest(m);
    send(m, RST);
    assert.equal(stream.isDestroyed, true);
    const other = openFromGuest(m);
    other.events?.data(Uint8Array.of(1));
    ops(m);
    other.events?.closed(true);
    assert.deepEqual(ops(m), [RST]);
    assert.equal(m.device.connectionCount, 0);
  });
});

describe("socket device: packets that make no sense", () => {
  it("for a connection that does not exist: RST, but not for an RST", () => {
    const m = rig();
    for (const op of [RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 99]) {
      send(m, op);
      const [packet] = received(m);
      assert.equal(packet?.op, RST);
      assert.equal(packet.hostPort, HOST_PORT);
      assert.equal(packet.guestPort, GUEST_PORT);
    }
    send(m, RST);
    assert.deepEqual(ops(m), []);
  });

  it("of another type: RST of that type", () => {
    const m = rig();
    send(m, REQUEST, { type: 2 });
    assert.deepEqual(
      received(m).map(({ op, type }) => [op, type]),
      [[RST, 2]],
    );
    assert.equal(m.streams.asked.length, 0);
  });

  it("from or to somebody else: dropped", () => {
    const m = rig();
    send(m, REQUEST, { sourceCid: 4 });
    send(m, REQUEST, { destinationCid: 1 });
    send(m, REQUEST, { destinationCid: 2 ** 32 + 2 });
    assert.deepEqual(ops(m), []);
    assert.equal(m.streams.asked.length, 0);
    assert.equal(m.device.counters.malformed, 3);
  });

  const broken: readonly (readonly [string, number, Partial<VsockHeader>])[] = [
    ["a second REQUEST", REQUEST, {}],
    ["a RESPONSE to nothing", RESPONSE, {}],
    ["an unknown operation", 99, {}],
    ["data shorter than its length", RW, { length: 10 }],
    ["a length that overflows", RW, { length: 0xffff_ffff }],
  ];
  for (const [what, op, header] of broken) {
    it(`on a connection, ${what}: it is reset`, () => {
      const m = rig();
      const stream = openFromGuest(m);
      send(m, op, header);
      assert.equal(stream.isDestroyed, true);
      assert.deepEqual(ops(m), [RST]);
      assert.equal(m.device.connectionCount, 0);
    });
  }

  it("shorter than a header: dropped", () => {
    const m = rig();
    m.txq.add([{ gpa: TX, length: 43 }]);
    m.driver.notify(1);
    assert.equal(m.txq.collect().length, 1);
    assert.equal(m.device.counters.malformed, 1);
  });

  it("a guest that earns resets and does not take them is not listened to until it does", () => {
    const m = rig({ buffers: 0 });
    for (let i = 0; i < 100; i++) put(m, RW, { sourcePort: i });
    m.driver.notify(1);
    m.loop.settle();
    assert.equal(m.txq.collect().length, 64);
    m.driver.notify(1);
    assert.equal(m.txq.collect().length, 0);
    addBuffers(m, 128);
    m.loop.settle();
    assert.equal(m.txq.collect().length, 36);
    assert.equal(received(m, false).length, 100);
  });

  it("a receive buffer without room for data breaks the device, until reset", () => {
    const m = rig({ buffers: 0 });
    send(m, RW);
    m.rxq.add([{ gpa: RX, length: 44, writable: true }]);
    m.driver.notify(0);
    assert.equal(m.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_CONFIG_S_NEEDS_RESET);
    Object.assign(m, connectDriver(m));
    addBuffers(m, 4);
    openFromGuest(m);
  });
});
