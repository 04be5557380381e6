// Needs: nothing. A driver that stops a queue (QueueReady 0) has all its buffers back, those included that the
// device has taken and not given back: virtio 1.2 §4.2.3.2. Nothing writes to them any more, nothing reads them.
// The block device's: block-slow.test.ts.
import assert from "node:assert/strict";
import { VIRTIO_BALLOON_F_STATS_VQ } from "../../../devices/virtio/balloon/constants.js";
import { BalloonDevice } from "../../../devices/virtio/balloon/device.js";
import { ConsoleDevice } from "../../../devices/virtio/console/device.js";
import type { VirtioDevice } from "../../../devices/virtio/device.js";
import { NetDevice } from "../../../devices/virtio/net/device.js";
import { RngDevice } from "../../../devices/virtio/rng/device.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { frameOf, MemoryNet } from "../../helpers/memory-net.js";
import { virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";
import { addBuffers, openFromGuest, put, rig as vsockRig } from "../../helpers/vsock-rig.js";

const BUFFER = 0x20_0000;
const ONE_A_SECOND = { operations: { size: 1, oneTimeBurst: 0, refillTimeMs: 1000 } };

function machineOf(device: VirtioDevice, loop: FakeLoop, memory = new FakeMemory(0x40_0000)): VirtioMachine {
  return virtioMachine(device, loop, memory);
}

/** Runs `action`; guest memory must be the same afterwards, and no interrupt have come. */
function untouched(m: VirtioMachine, action: () => void): void {
  const before = m.memory.bytes.slice();
  const interrupts = m.interrupts;
  action();
  assert.ok(Buffer.from(m.memory.bytes).equals(before), "guest memory has changed");
  assert.equal(m.interrupts, interrupts);
}

describe("a stopped queue", () => {
  it("network: held receive buffers are left alone, and nobody watches for frames", () => {
    const loop = new FakeLoop();
    const memory = new FakeMemory(0x40_0000);
    const net = new MemoryNet(memory);
    const report = (): void => undefined;
    const device = new NetDevice({ name: "net0", backend: net, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), loop, report });
    const m = machineOf(device, loop, memory);
    const [rxq, txq] = m.driver.start();
    rxq?.add([{ gpa: BUFFER, length: 2048, writable: true }]);
    m.driver.notify(0);
    assert.ok(net.ready !== undefined);
    m.driver.stopQueue(0);
    untouched(m, () => {
      net.arrive(frameOf(60));
      loop.settle();
      m.driver.notify(0);
    });
    assert.deepEqual([net.ready, net.waiting.length], [undefined, 1]);
    // The other direction goes on.
    txq?.add([{ gpa: BUFFER, length: 72 }]);
    m.driver.notify(1);
    assert.equal(net.sent.length, 1);
    m.driver.stopQueue(1);
    txq?.add([{ gpa: BUFFER, length: 72 }]);
    untouched(m, () => m.driver.notify(1));
    assert.equal(net.sent.length, 1);
    // A new driver gets the frame.
    const [next] = m.driver.start();
    next?.add([{ gpa: BUFFER, length: 2048, writable: true }]);
    m.driver.notify(0);
    assert.equal(next?.collect()[0]?.length, 72);
  });

  it("network: a frame that waits for the limiter does not come afterwards", () => {
    const loop = new FakeLoop();
    const memory = new FakeMemory(0x40_0000);
    const net = new MemoryNet(memory);
    const device = new NetDevice({
      name: "net0",
      backend: net,
      mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
      rxRateLimiter: ONE_A_SECOND,
      loop,
      report: () => undefined,
    });
    const m = machineOf(device, loop, memory);
    const [rxq] = m.driver.start();
    for (let index = 0; index < 4; index++) rxq?.add([{ gpa: BUFFER + 2048 * index, length: 2048, writable: true }]);
    m.driver.notify(0);
    net.arrive(frameOf(60), frameOf(60));
    assert.equal(rxq?.collect().length, 1);
    m.driver.stopQueue(0);
    untouched(m, () => loop.advance(5000));
    assert.equal(device.counters.rxFrames, 1);
  });

  it("balloon: the rest of a list that is being read, and an answer with statistics", () => {
    const loop = new FakeLoop();
    const released: number[] = [];
    const device = new BalloonDevice({
      name: "balloon0",
      pages: { release: (gpa) => released.push(gpa) && 0, explain: String },
      onStatistics: () => undefined,
      loop,
      report: () => undefined,
    });
    const m = machineOf(device, loop);
    const [inflateq, , statsq] = m.driver.start({ features: [VIRTIO_BALLOON_F_STATS_VQ] });
    // Two turns' worth of pages, every other one.
    for (let index = 0; index < 6000; index++) m.memory.writeU32(BUFFER + 4 * index, 2 * (index % 400));
    inflateq?.add([{ gpa: BUFFER, length: 24_000 }]);
    m.driver.notify(0);
    assert.equal(device.counters.inflatedPages, 4096);
    m.driver.stopQueue(0);
    const count = released.length;
    untouched(m, () => loop.settle());
    assert.deepEqual([released.length, device.counters.inflatedPages], [count, 4096]);

    statsq?.add([{ gpa: BUFFER, length: 20 }]);
    m.driver.notify(2);
    m.driver.stopQueue(2);
    untouched(m, () => assert.equal(device.requestStatistics(), false));
  });

  it("console: the rest of output that the host did not take yet; input waits for the next driver", () => {
    const loop = new FakeLoop();
    const output: string[] = [];
    let isReady = false;
    const host = {
      transmit: (bytes: Uint8Array) => {
        output.push(String(bytes.length));
        return isReady;
      },
      roomAvailable: () => undefined,
    };
    const device = new ConsoleDevice({ name: "console0", host });
    const m = machineOf(device, loop);
    const [receiveq, transmitq] = m.driver.start();
    transmitq?.add([{ gpa: BUFFER, length: 40_000 }]);
    m.driver.notify(1);
    m.driver.stopQueue(1);
    isReady = true;
    untouched(m, () => {
      device.outputReady();
      loop.settle();
    });
    assert.deepEqual(output, ["16384"]);
    receiveq?.add([{ gpa: BUFFER, length: 100, writable: true }]);
    m.driver.notify(0);
    m.driver.stopQueue(0);
    untouched(m, () => assert.equal(device.receive(Buffer.from("hello")), 5));
    const [next] = m.driver.start();
    next?.add([{ gpa: BUFFER, length: 100, writable: true }]);
    m.driver.notify(0);
    assert.equal(next?.collect()[0]?.length, 5);
  });

  it("entropy: a request that waits for the limiter is not filled", () => {
    const loop = new FakeLoop();
    const source = { fill: (bytes: Uint8Array) => bytes.fill(0x5a) };
    const device = new RngDevice({ name: "rng0", source, rateLimiter: ONE_A_SECOND, loop });
    const m = machineOf(device, loop);
    const [queue] = m.driver.start();
    for (let index = 0; index < 2; index++) queue?.add([{ gpa: BUFFER + 64 * index, length: 64, writable: true }]);
    m.driver.notify(0);
    assert.equal(queue?.collect().length, 1);
    m.driver.stopQueue(0);
    untouched(m, () => loop.advance(5000));
    assert.equal(device.counters.requests, 1);
  });

  it("sockets: no packet comes any more, and none is taken", () => {
    const m = vsockRig();
    const stream = openFromGuest(m);
    addBuffers(m, 4);
    m.driver.stopQueue(0);
    untouched(m, () => stream.events?.data(Uint8Array.of(1, 2, 3)));
    m.driver.stopQueue(1);
    put(m, 5, {}, [1, 2, 3]);
    untouched(m, () => m.driver.notify(1));
    assert.deepEqual(stream.written, []);
  });
});
