// Needs: nothing. A network device saved with frames on their way, and restored over another network.
import assert from "node:assert/strict";
import {
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_RING_F_EVENT_IDX,
} from "../../../devices/virtio/constants.js";
import {
  VIRTIO_NET_CONFIG_STATUS,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_STATUS,
} from "../../../devices/virtio/net/constants.js";
import { NetDevice, type NetDeviceOptions } from "../../../devices/virtio/net/device.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { frameOf, MemoryNet } from "../../helpers/memory-net.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saveQuiet, type SavedDevice } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
const OTHER_MAC = Uint8Array.of(2, 0, 0, 0, 0, 9);
const PLAIN = [VIRTIO_NET_F_STATUS, VIRTIO_RING_F_EVENT_IDX];
const LARGE = [...PLAIN, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4];
const TX = 0x20_0000;
const RX = 0x28_0000;
const BUFFER_LENGTH = 2048;
const LIMIT = { operations: { size: 1, oneTimeBurst: 0, refillTimeMs: 100 } };

interface Rig extends VirtioMachine {
  readonly device: NetDevice;
  readonly net: MemoryNet;
  readonly rxq: DriverQueue;
  readonly txq: DriverQueue;
}

function deviceOver(net: MemoryNet, loop: FakeLoop, options: Partial<NetDeviceOptions> = {}): NetDevice {
  return new NetDevice({ name: "net0", backend: net, mac: MAC, loop, report: () => undefined, ...options });
}

function rig(features: readonly number[] = PLAIN, options: Partial<NetDeviceOptions> = {}): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const net = new MemoryNet(memory);
  const device = deviceOver(net, loop, options);
  const machine = virtioMachine(device, loop, memory);
  const [rxq, txq] = machine.driver.start({ features });
  assert.ok(rxq !== undefined && txq !== undefined);
  return Object.assign(machine, { device, net, rxq, txq });
}

function next(m: Rig, state: SavedDevice, options: Partial<NetDeviceOptions> = {}): Rig {
  const net = new MemoryNet(m.memory);
  const device = deviceOver(net, m.loop, { mac: OTHER_MAC, ...options });
  return Object.assign(restoredMachine(state, device, m.loop, m.memory), { device, net, rxq: m.rxq, txq: m.txq });
}

function addBuffers(m: Rig, count: number): void {
  for (let i = 0; i < count; i++) m.rxq.add([{ gpa: RX + i * BUFFER_LENGTH, length: BUFFER_LENGTH, writable: true }]);
  m.driver.notify(0);
}

function send(m: Rig, first: number): void {
  m.memory.slice(TX, 72).set(frameOf(60, first));
  m.txq.add([{ gpa: TX, length: 72 }]);
  m.driver.notify(1);
}

function lengths(m: Rig): number[] {
  return m.rxq.collect().map(({ length }) => length);
}

describe("network device: state", function () {
  this.timeout(20_000);

  it("buffers held for frames to come are held again by the next device, in their order", async () => {
    for (const features of [PLAIN, LARGE]) {
      const m = rig(features);
      addBuffers(m, 40);
      m.net.arrive(frameOf(60), frameOf(70));
      assert.deepEqual(lengths(m), [72, 82]);
      const state = await saveQuiet(m);
      assert.equal(m.net.ready, undefined, "nobody watches a network whose guest does not run");
      const other = next(m, state);
      assert.deepEqual(other.net.offloads, m.net.offloads);
      other.net.arrive(frameOf(80), frameOf(90, 5));
      assert.deepEqual(lengths(other), [92, 102]);
      // The third and the fourth buffer, right behind those of the first device.
      assert.deepEqual(other.memory.slice(RX + 3 * BUFFER_LENGTH, 102).subarray(12), frameOf(90, 5).subarray(12));
      send(other, 7);
      assert.deepEqual(other.net.sent, [frameOf(60, 7)]);
    }
  });

  it("a frame over several buffers comes whole after a restore", async () => {
    const m = rig(LARGE);
    addBuffers(m, 60);
    const other = next(m, await saveQuiet(m));
    other.net.arrive(frameOf(5000));
    assert.deepEqual(lengths(other), [2048, 2048, 916]);
    assert.equal(other.memory.readU16(RX + 10), 3);
  });

  it("a frame that waits for the limiter is the guest's before it is quiet, and the limiter's debt", async () => {
    const m = rig(PLAIN, { rxRateLimiter: LIMIT });
    addBuffers(m, 4);
    m.net.arrive(frameOf(60), frameOf(70), frameOf(80));
    assert.deepEqual(lengths(m), [72]);
    const state = await saveQuiet(m);
    assert.deepEqual(lengths(m), [82]);
    assert.equal(m.device.counters.rxFrames, 2);
    assert.deepEqual((state.device as Record<string, unknown>)["rxLimiter"], {
      bandwidth: null,
      operations: { tokens: -1, burst: 0 },
    });
    const other = next(m, state, { rxRateLimiter: LIMIT });
    other.net.arrive(frameOf(90));
    other.loop.advance(190);
    assert.deepEqual(lengths(other), []);
    other.loop.advance(10);
    assert.deepEqual(lengths(other), [102]);
  });

  it("a frame that the host could not take yet is sent once, by the new one", async () => {
    const m = rig();
    m.net.sendResult = 0;
    send(m, 3);
    assert.equal(m.txq.collect().length, 0);
    const other = next(m, await saveQuiet(m));
    other.loop.advance(100);
    assert.deepEqual([m.net.sent.length, other.net.sent.length, m.txq.collect().length], [0, 1, 1]);
  });

  it("the same device goes on: frames that came meanwhile, and a link that went down", async () => {
    const m = rig();
    addBuffers(m, 4);
    await saveQuiet(m);
    m.net.arrive(frameOf(60));
    m.device.setLink(false);
    m.loop.advance(1000);
    assert.deepEqual([lengths(m), m.interrupts], [[], 0]);
    m.transport.unquiesce();
    assert.deepEqual(lengths(m), [72]);
    assert.ok(m.net.ready !== undefined);
    assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING);
    assert.equal(m.transport.read(VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_STATUS, 2), 0);
  });

  it("the guest keeps its address unless the new machine is given one; a link that was down is up again", async () => {
    const m = rig();
    m.device.setLink(false);
    m.driver.takeInterrupt();
    const state = await saveQuiet(m);
    const macOf = ({ transport }: Rig): number[] =>
      Array.from({ length: 6 }, (_, index) => transport.read(VIRTIO_MMIO_CONFIG + index, 1));
    const other = next(m, state);
    assert.deepEqual(macOf(other), [...MAC]);
    assert.equal(other.interrupts, 1);
    assert.equal(other.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert.equal(other.transport.read(VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_STATUS, 2), 1);
    send(other, 1);
    assert.equal(other.net.sent.length, 1);
    assert.deepEqual(macOf(next(m, state, { isMacOwn: true })), [...OTHER_MAC]);
    const up = next(other, await saveQuiet(other));
    assert.equal(up.driver.takeInterrupt() & VIRTIO_MMIO_INT_CONFIG, 0);
  });

  it("a driver that has handed in more than its queue holds loses its device, not the monitor", async () => {
    const m = rig(LARGE);
    addBuffers(m, 40);
    const head = m.rxq.add([{ gpa: RX, length: 64, writable: true }]);
    for (let i = 0; i < 600; i++) {
      m.rxq.publish(head);
      m.driver.notify(0);
      m.net.arrive();
    }
    const other = next(m, await saveQuiet(m));
    other.net.arrive(frameOf(60));
    assert.ok((other.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET) !== 0 || lengths(other).length > 0);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const m = rig(LARGE, { rxRateLimiter: LIMIT });
    addBuffers(m, 4);
    const state = await saveQuiet(m);
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    const restore = (changed: unknown): void => {
      const loop = new FakeLoop();
      const net = new MemoryNet(memory);
      const machine = virtioMachine(deviceOver(net, loop, { rxRateLimiter: LIMIT }), loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
      net.arrive(frameOf(60));
      loop.advance(1000);
    };
    assertMutationsRefused(state, "state", restore);
    for (const mac of ["AAAAAAAA", "AQAAAAAB"]) {
      const changed = { ...state, device: { ...(state.device as object), mac } };
      assert.throws(
        () => restore(changed),
        /^StateError: state\.device\.mac "A.*" is not an address that an interface/,
      );
    }
  });
});
