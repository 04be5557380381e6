// Needs: nothing.
import assert from "node:assert/strict";
import { CONNECTION_BUFFER_BYTES } from "../../../devices/virtio/vsock/connection.js";
import {
  VIRTIO_VSOCK_OP_REQUEST as REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE as RESPONSE,
  VIRTIO_VSOCK_OP_RST as RST,
  VIRTIO_VSOCK_OP_RW as RW,
  VIRTIO_VSOCK_OP_SHUTDOWN as SHUTDOWN,
} from "../../../devices/virtio/vsock/constants.js";
import {
  addBuffers,
  connectDriver,
  GUEST_PORT,
  HOST_PORT,
  openFromGuest,
  ops,
  received,
  rig,
  send,
} from "../../helpers/vsock-rig.js";

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
