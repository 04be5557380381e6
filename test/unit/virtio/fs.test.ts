// Needs: nothing. The file system device: what the driver sees of it, what its server is told, and what it answers itself
// once that has gone.
import assert from "node:assert/strict";
import {
  VIRTIO_ID_FS,
  VIRTIO_MMIO_DEVICE_ID,
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_INTERRUPT_STATUS,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import { FsDevice } from "../../../devices/virtio/fs/device.js";
import { FakeFsServer } from "../../helpers/fake-fs-server.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";

const IN_HEADER_BYTES = 40;
const REQUEST = 0x30_0000;
const ANSWER = 0x31_0000;
const ENOTCONN = 107;

function make(tag = "code") {
  const server = new FakeFsServer();
  const device = new FsDevice({ name: "share0", tag: Buffer.from(tag), backend: server });
  return Object.assign(virtioMachine(device), { server, device });
}

describe("fs: what the driver sees", () => {
  it("a device of type 26 with two queues, its tag padded with zeroes, one request queue", () => {
    const { driver, transport } = make("Häuser");
    assert.equal(driver.read(VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_FS);
    const bytes = Uint8Array.from({ length: 40 }, (_, offset) => transport.read(0x100 + offset, 1));
    assert.equal(Buffer.from(bytes.subarray(0, 36)).toString(), "Häuser".padEnd(35, "\0"));
    assert.equal(driver.readConfigU32(36), 1);
    // Read-only, and nothing behind it.
    transport.write(0x100, 4, 0x41414141);
    assert.equal(transport.read(0x100, 1), "H".charCodeAt(0));
    assert.equal(driver.readConfigU32(40), 0);
    assert.equal(driver.start().length, 2);
  });

  it("a tag of 36 bytes has no zero behind it, and is not longer", () => {
    const { driver, transport } = make("x".repeat(40));
    assert.equal(transport.read(0x100 + 35, 1), "x".charCodeAt(0));
    assert.equal(driver.readConfigU32(36), 1);
  });

  it("InterruptStatus says used buffers from DRIVER_OK to the reset, whatever the driver acknowledges", () => {
    const { driver } = make();
    assert.equal(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    driver.start();
    for (let times = 0; times < 2; times++) {
      assert.equal(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
      driver.write(VIRTIO_MMIO_INTERRUPT_ACK, 0xffff_ffff);
    }
    driver.reset();
    assert.equal(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
  });
});

describe("fs: what the server is told", () => {
  it("where the queues are, what was negotiated, notifications, a stopped queue, the reset", () => {
    const { driver, server } = make();
    const queues = driver.start({ features: [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC], queueSize: 8 });
    driver.notify(1);
    assert.deepEqual(server.queues, [], "as long as nothing is in them");
    queues[1]?.add([{ gpa: REQUEST, length: 40 }]);
    driver.notify(1);
    assert.deepEqual(
      server.queues,
      queues.map(({ size, descriptorGpa, availableGpa, usedGpa }) => {
        return { size, descriptorGpa, availableGpa, usedGpa, nextAvailable: 0 };
      }),
    );
    driver.notify(7);
    driver.stopQueue(0);
    driver.stopQueue(0);
    driver.notify(0);
    driver.reset();
    // Two resets come before the driver's first step, and stop what was never started.
    const begin = ["stop 0", "stop 1"];
    assert.deepEqual(server.calls, [...begin, "start 130000000", "kick 1", "stop 0", "stop 0", "stop 1"]);
  });

  it("used buffers come through the transport while they are relayed, and not to a driver that has gone", () => {
    const machine = make();
    machine.driver.start();
    machine.device.relayInterrupts(true);
    machine.server.used?.(1);
    assert.equal(machine.interrupts, 1);
    machine.driver.reset();
    machine.server.used?.(1);
    assert.equal(machine.interrupts, 1);
    machine.device.relayInterrupts(false);
    assert.equal(machine.server.used, undefined);
  });

  it("a queue that the driver has not set up is none", () => {
    const { driver, server } = make();
    driver.negotiate();
    const queue = driver.setUpQueue(1, 4);
    driver.addStatus(4);
    queue.add([{ gpa: REQUEST, length: 40 }]);
    driver.notify(1);
    assert.equal(server.queues[0], undefined);
    assert.equal(server.queues[1]?.descriptorGpa, queue.descriptorGpa);
  });
});

describe("fs: after the server has gone", () => {
  it("answers what it was at, and all that comes, with ENOTCONN; nothing where no answer is wanted", () => {
    const machine = make();
    const { driver, server, memory, device } = machine;
    const [hiprio, requests] = driver.start({ queueSize: 16 });
    assert.ok(hiprio !== undefined && requests !== undefined);
    memory.writeU32(REQUEST, IN_HEADER_BYTES);
    memory.writeU64(REQUEST + 8, 0x1234_5678_9abc_def0n);
    // Cut in the middle of the number, and of the answer.
    const pieces = [
      { gpa: REQUEST, length: 11 },
      { gpa: REQUEST + 11, length: 29 },
      { gpa: ANSWER, length: 5, writable: true },
      { gpa: ANSWER + 5, length: 200, writable: true },
    ];
    requests.add(pieces);
    driver.notify(1);
    const before = machine.interrupts;
    server.onLost?.();
    assert.deepEqual(
      requests.collect().map(({ length }) => length),
      [16],
    );
    assert.equal(memory.readU32(ANSWER), 16);
    assert.equal(memory.readU32(ANSWER + 4) | 0, -ENOTCONN);
    assert.equal(memory.readU64(ANSWER + 8), 0x1234_5678_9abc_def0n);
    assert.ok(machine.interrupts > before);
    // From now on through the descriptors that the server had; FORGET wants no answer, and room for half of one is none.
    hiprio.add([{ gpa: REQUEST, length: 48 }]);
    hiprio.add([
      { gpa: REQUEST, length: 48 },
      { gpa: ANSWER, length: 15, writable: true },
    ]);
    server.notified?.(0);
    assert.deepEqual(
      hiprio.collect().map(({ length }) => length),
      [0, 0],
    );
    assert.equal(device.counters.refused, 3);
    // A new driver finds a device that answers everything so.
    const calls = server.calls.length;
    const [, again] = driver.start({ queueSize: 16 });
    assert.ok(again !== undefined);
    again.add(pieces);
    driver.notify(1);
    assert.equal(again.collect().length, 1);
    assert.ok(!server.calls.slice(calls).some((call) => call.startsWith("start") || call.startsWith("kick")));
  });

  it("goes on behind what the server has answered, and a driver that lies about that harms only its own device", () => {
    const machine = make();
    const { driver, server, memory, log } = machine;
    const [, requests] = driver.start({ queueSize: 8 });
    assert.ok(requests !== undefined);
    const buffers = [
      { gpa: REQUEST, length: 40 },
      { gpa: ANSWER, length: 16, writable: true },
    ];
    requests.add(buffers);
    requests.add(buffers);
    // The server has answered the first one.
    memory.writeU32(requests.usedGpa + 4, requests.write([{ gpa: 0, length: 0 }]));
    memory.storeU16(requests.usedGpa + 2, 1);
    server.onLost?.();
    assert.equal(memory.loadU16(requests.usedGpa + 2), 2);
    assert.deepEqual(log, []);
    // 40,000 more answers than requests.
    const other = make();
    const [, liar] = other.driver.start({ queueSize: 4 });
    assert.ok(liar !== undefined);
    other.memory.storeU16(liar.usedGpa + 2, 40_000);
    other.server.onLost?.();
    assert.match(
      other.log.join("\n"),
      /^share0: Driver claims 25536 chains in a queue of 4; the device needs a reset$/,
    );
  });
});
