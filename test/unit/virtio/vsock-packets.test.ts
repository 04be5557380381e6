// Needs: nothing.
import assert from "node:assert/strict";
import { VIRTIO_CONFIG_S_NEEDS_RESET } from "../../../devices/virtio/constants.js";
import {
  VIRTIO_VSOCK_OP_CREDIT_REQUEST as CREDIT_REQUEST,
  VIRTIO_VSOCK_OP_CREDIT_UPDATE as CREDIT_UPDATE,
  VIRTIO_VSOCK_OP_REQUEST as REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE as RESPONSE,
  VIRTIO_VSOCK_OP_RST as RST,
  VIRTIO_VSOCK_OP_RW as RW,
  VIRTIO_VSOCK_OP_SHUTDOWN as SHUTDOWN,
} from "../../../devices/virtio/vsock/constants.js";
import type { VsockHeader } from "../../../devices/virtio/vsock/header.js";
import {
  addBuffers,
  connectDriver,
  GUEST_PORT,
  HOST_PORT,
  openFromGuest,
  ops,
  put,
  received,
  rig,
  RX,
  send,
  TX,
} from "../../helpers/vsock-rig.js";

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
