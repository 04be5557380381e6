// Needs: nothing.
import assert from "node:assert/strict";
import { CONNECTION_BUFFER_BYTES } from "../../../devices/virtio/vsock/connection.js";
import {
  VIRTIO_VSOCK_OP_CREDIT_REQUEST as CREDIT_REQUEST,
  VIRTIO_VSOCK_OP_CREDIT_UPDATE as CREDIT_UPDATE,
  VIRTIO_VSOCK_OP_REQUEST as REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE as RESPONSE,
  VIRTIO_VSOCK_OP_RST as RST,
  VIRTIO_VSOCK_OP_RW as RW,
  VIRTIO_VSOCK_OP_SHUTDOWN as SHUTDOWN,
  VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE as SHUTDOWN_RECEIVE,
} from "../../../devices/virtio/vsock/constants.js";
import type { FakeStream } from "../../helpers/fake-streams.js";
import {
  addBuffers,
  GUEST_PORT,
  openFromGuest,
  ops,
  received,
  rig,
  RX,
  RX_LENGTH,
  send,
  TX,
  writeHeader,
  type Rig,
} from "../../helpers/vsock-rig.js";

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

  it("what nobody may or will receive is dropped: before the connection stands, after the guest is through, nothing at all", () => {
    const m = rig();
    send(m, REQUEST);
    const asked = m.streams.asked.at(-1);
    asked?.events.data(Uint8Array.of(1, 2, 3));
    asked?.events.connected();
    assert.deepEqual(ops(m), [RESPONSE]);
    asked?.events.data(new Uint8Array(0));
    assert.deepEqual(ops(m), []);
    send(m, SHUTDOWN, { flags: SHUTDOWN_RECEIVE });
    asked?.events.data(Uint8Array.of(1, 2, 3));
    assert.deepEqual([ops(m), m.device.counters.rxBytes], [[], 0]);
    // The guest may still send.
    send(m, RW, {}, [7]);
    assert.deepEqual(asked?.stream.written, [7]);
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

  /** Opens `count` connections with all the credit that there is. */
  function openMany(m: Rig, count: number): FakeStream[] {
    return Array.from({ length: count }, (_, index) =>
      openFromGuest(m, { sourcePort: GUEST_PORT + index, bufferSize: 2 ** 31 }),
    );
  }

  it("a turn takes 1 MiB of the guest's data, or 64 packets, and the next one goes on", () => {
    const m = rig();
    openMany(m, 5);
    // 20 packets of 64 KiB, four a connection, that share their bytes.
    for (let index = 0; index < 20; index++) {
      const header = TX + 64 * index;
      writeHeader(m, header, RW, { sourcePort: GUEST_PORT + (index % 5), length: 65_536 });
      m.txq.add([
        { gpa: header, length: 44 },
        { gpa: TX + 0x1000, length: 65_536 },
      ]);
    }
    m.driver.notify(1);
    assert.deepEqual([m.device.counters.txBytes, m.txq.collect().length], [16 * 65_536, 16]);
    m.loop.turn();
    assert.deepEqual([m.device.counters.txBytes, m.txq.collect().length], [20 * 65_536, 4]);
    assert.equal(m.device.counters.malformed, 0);

    const small = rig();
    openFromGuest(small);
    writeHeader(small, TX, RW, { length: 1 });
    for (let index = 0; index < 100; index++) small.txq.add([{ gpa: TX, length: 45 }]);
    small.driver.notify(1);
    assert.equal(small.txq.collect().length, 64);
    small.loop.turn();
    assert.equal(small.txq.collect().length, 36);
  });

  it("a turn brings 1 MiB to the guest, or 64 packets, and the next one goes on", () => {
    const m = rig({ buffers: 0 });
    const stream = openQuietly(m);
    for (let index = 0; index < 40; index++) m.rxq.add([{ gpa: RX, length: 65_536 + 44, writable: true }]);
    stream.events?.data(new Uint8Array(20 * 65_536));
    assert.deepEqual([m.device.counters.rxBytes, m.rxq.collect().length], [16 * 65_536, 16]);
    m.loop.turn();
    assert.deepEqual([m.device.counters.rxBytes, m.rxq.collect().length], [20 * 65_536, 4]);

    const small = rig({ buffers: 0 });
    const other = openQuietly(small);
    for (let index = 0; index < 100; index++) small.rxq.add([{ gpa: RX, length: 45, writable: true }]);
    other.events?.data(new Uint8Array(80));
    assert.equal(small.rxq.collect().length, 64);
    small.loop.turn();
    assert.equal(small.rxq.collect().length, 16);
    assert.equal(small.loop.turn(), false);
  });

  /** The RESPONSE takes a buffer of its own. */
  function openQuietly(m: Rig): FakeStream {
    m.rxq.add([{ gpa: RX, length: 64, writable: true }]);
    m.driver.notify(0);
    send(m, REQUEST, { bufferSize: 2 ** 31 });
    const asked = m.streams.asked.at(-1);
    assert.ok(asked !== undefined);
    asked.events.connected();
    assert.equal(m.rxq.collect().length, 1);
    return asked.stream;
  }
});
