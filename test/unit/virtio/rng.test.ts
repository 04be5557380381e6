// Needs: nothing.
import assert from "node:assert/strict";
import { VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_RING_F_EVENT_IDX } from "../../../devices/virtio/constants.js";
import { RNG_REQUEST_BYTES, RngDevice, type RngDeviceOptions } from "../../../devices/virtio/rng/device.js";
import { hostEntropy } from "../../../vmm/virtio/backends/entropy.js";
import { MappedGuestMemory } from "../../../vmm/memory/guest-memory.js";
import { MIB } from "../../../vmm/memory/layout.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const BUFFER = 0x20_0000;
/** What the source under test writes. */
const RANDOM = 0x5e;

interface Rig extends VirtioMachine {
  readonly device: RngDevice;
  readonly queue: DriverQueue;
}

function rig(options: Partial<RngDeviceOptions> = {}): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const source = { fill: (bytes: Uint8Array) => void bytes.fill(RANDOM) };
  const device = new RngDevice({ name: "rng0", source, loop, ...options });
  const machine = virtioMachine(device, loop, memory);
  const [queue] = machine.driver.start({ features: [VIRTIO_RING_F_EVENT_IDX] });
  assert.ok(queue !== undefined);
  return Object.assign(machine, { device, queue });
}

describe("entropy device", () => {
  it("fills a buffer, all of it and nothing beside it", () => {
    const m = rig();
    const head = m.queue.add([
      { gpa: BUFFER + 1, length: 30, writable: true },
      { gpa: BUFFER + 64, length: 34, writable: true },
    ]);
    m.driver.notify(0);
    assert.deepEqual(m.queue.collect(), [{ id: head, length: 64 }]);
    const expected = new Uint8Array(128);
    expected.fill(RANDOM, 1, 31).fill(RANDOM, 64, 98);
    assert.deepEqual(m.memory.slice(BUFFER, 128), expected);
    assert.equal(m.device.counters.bytes, 64);
    assert.equal(m.interrupts, 1);
  });

  it("a huge buffer gets its start filled, and the used length says how much", () => {
    const m = rig();
    m.queue.add([{ gpa: BUFFER, length: MIB, writable: true }]);
    m.driver.notify(0);
    assert.equal(m.queue.collect()[0]?.length, RNG_REQUEST_BYTES);
    assert.equal(m.memory.readU8(BUFFER + RNG_REQUEST_BYTES - 1), RANDOM);
    assert.equal(m.memory.readU8(BUFFER + RNG_REQUEST_BYTES), 0);
  });

  it("a chain without room is given back empty and counted; readable buffers stay as they are", () => {
    const m = rig();
    m.memory.slice(BUFFER, 16).fill(1);
    const head = m.queue.add([{ gpa: BUFFER, length: 16 }]);
    m.driver.notify(0);
    assert.deepEqual(m.queue.collect(), [{ id: head, length: 0 }]);
    assert.equal(m.device.counters.refused, 1);
    assert.deepEqual(m.memory.slice(BUFFER, 16), new Uint8Array(16).fill(1));
    assert.equal(m.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
  });

  it("a turn is bounded, the rest comes in later ones", () => {
    const m = rig();
    for (let i = 0; i < 40; i++) m.queue.add([{ gpa: BUFFER, length: 64, writable: true }]);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 16);
    assert.equal(m.loop.turn(), true);
    assert.equal(m.queue.collect().length, 16);
    m.loop.settle();
    assert.equal(m.queue.collect().length, 8);
  });

  it("the rate limiter holds the queue, and a reset takes its timer back", () => {
    const m = rig({ rateLimiter: { bandwidth: { size: 64, oneTimeBurst: 0, refillTimeMs: 100 } } });
    for (let i = 0; i < 2; i++) m.queue.add([{ gpa: BUFFER, length: 64, writable: true }]);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 1);
    m.driver.notify(0);
    m.loop.advance(99);
    assert.equal(m.queue.collect().length, 0);
    m.loop.advance(1);
    assert.equal(m.queue.collect().length, 1);
    assert.equal(m.device.counters.throttled, 1);
    for (let i = 0; i < 2; i++) m.queue.add([{ gpa: BUFFER, length: 64, writable: true }]);
    m.driver.notify(0);
    assert.equal(m.loop.timerCount, 1);
    m.driver.reset();
    assert.equal(m.loop.timerCount, 0);
  });

  it("has no configuration space", () => {
    const { driver } = rig();
    assert.equal(driver.readConfigU32(0), 0);
  });

  it("the host's generator fills mapped guest memory directly", () => {
    const memory = MappedGuestMemory.map(MIB);
    hostEntropy.fill(memory.slice(4096, 4096));
    // 2^-32768 for a fair generator; a copy that never came back leaves zeroes.
    assert.ok(new Set(memory.slice(4096, 4096)).size > 200);
    assert.ok(memory.slice(0, 4096).every((byte) => byte === 0));
    assert.ok(memory.slice(8192, 4096).every((byte) => byte === 0));
    memory.unmap();
  });
});
