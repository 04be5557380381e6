// Needs: nothing.
import assert from "node:assert/strict";
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER as DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED as FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_CONFIG_GENERATION,
  VIRTIO_MMIO_DEVICE_FEATURES,
  VIRTIO_MMIO_DEVICE_FEATURES_SEL,
  VIRTIO_MMIO_DEVICE_ID,
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_INTERRUPT_STATUS,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_MMIO_QUEUE_NUM,
  VIRTIO_MMIO_QUEUE_NUM_MAX,
  VIRTIO_MMIO_QUEUE_READY,
  VIRTIO_MMIO_QUEUE_SEL,
  VIRTIO_MMIO_SHM_LEN_LOW,
  VIRTIO_MMIO_STATUS,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import { featureSet } from "../../../devices/virtio/features.js";
import type { QueueAddresses } from "../../../devices/virtio/queue.js";
import { ECHO_BUDGET, ECHO_FEATURE, EchoDevice } from "../../helpers/echo-device.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

function machine(): VirtioMachine & { device: EchoDevice } {
  const device = new EchoDevice();
  return Object.assign(virtioMachine(device), { device });
}

const IN = { gpa: 0x20_0000, length: 4 };
const OUT = { gpa: 0x20_1000, length: 16, writable: true };

describe("mmio-transport", () => {
  it("a driver finds the device, agrees with it, and gets its bytes back", () => {
    for (const features of [[], [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC]]) {
      const m = machine();
      const [queue] = m.driver.start({ features });
      assert.ok(queue !== undefined);
      assert.equal(m.driver.status, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
      m.memory.writeU32(IN.gpa, 0xcafebabe);
      const head = queue.add([IN, OUT]);
      assert.equal(queue.wantsNotification(), true);
      m.driver.notify(0);
      assert.equal(m.interrupts, 1);
      assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_VRING);
      assert.equal(m.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
      assert.deepEqual(queue.collect(), [{ id: head, length: 4 }]);
      assert.equal(m.memory.readU32(OUT.gpa), 0xcafebabe);
      assert.deepEqual(m.device.events, ["reset", "activate", "available 0"]);
    }
  });

  it("identity, features and queue sizes are as the device says", () => {
    const { driver } = machine();
    assert.equal(driver.read(VIRTIO_MMIO_DEVICE_ID), 42);
    const common = [VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC];
    assert.equal(driver.offeredFeatures(), featureSet(ECHO_FEATURE, ...common));
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert.equal(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 0);
    const sizes = [0, 1, 2, 0xffff_ffff].map((index) => {
      driver.write(VIRTIO_MMIO_QUEUE_SEL, index);
      return driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX);
    });
    assert.deepEqual(sizes, [16, 8, 0, 0]);
    assert.equal(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), 0xffff_ffff);
  });

  it("registers are 32 bits wide, the configuration space is the device's at any width", () => {
    const { transport, device } = machine();
    assert.equal(transport.read(0, 1), 0);
    assert.equal(transport.read(0, 2), 0);
    transport.write(VIRTIO_MMIO_STATUS, 1, ACKNOWLEDGE);
    assert.equal(transport.read(VIRTIO_MMIO_STATUS, 4), 0);
    assert.equal(transport.counters.refusedWrites, 1);
    assert.equal(transport.read(VIRTIO_MMIO_CONFIG + 3, 2), 3 * 16 + 2);
    transport.write(VIRTIO_MMIO_CONFIG + 8, 1, 7);
    assert.deepEqual(device.config, [8, 1, 7]);
  });

  it("every status transition that is not in the sequence is refused", () => {
    const steps = [0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | FEATURES_OK];
    const last = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    const legal = new Set(["0>1", "0>3", "1>3", "3>11", "11>15"]);
    for (const [count, from] of [...steps, last].entries()) {
      for (let to = 1; to < 0x80; to++) {
        if ((to & NEEDS_RESET) !== 0) continue;
        const { driver } = machine();
        for (const step of steps.slice(0, count + 1)) {
          if (step === (ACKNOWLEDGE | DRIVER | FEATURES_OK)) driver.writeFeatures(featureSet(VIRTIO_F_VERSION_1));
          driver.write(VIRTIO_MMIO_STATUS, step);
        }
        if (from === last) driver.write(VIRTIO_MMIO_STATUS, last);
        if (to === (ACKNOWLEDGE | DRIVER | FEATURES_OK) && from !== last) {
          driver.writeFeatures(featureSet(VIRTIO_F_VERSION_1));
        }
        assert.equal(driver.status, from);
        driver.write(VIRTIO_MMIO_STATUS, to);
        const isLegal = from === to || legal.has(`${String(from)}>${String(to)}`);
        assert.equal(driver.status, isLegal ? to : from, `${String(from)} > ${String(to)}`);
      }
    }
  });

  it("VERSION_1 is a must, and what was not offered is refused", () => {
    for (const features of [0n, featureSet(VIRTIO_F_VERSION_1, 6), featureSet(VIRTIO_F_VERSION_1, 63)]) {
      const { driver } = machine();
      driver.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
      driver.writeFeatures(features);
      driver.addStatus(FEATURES_OK);
      assert.equal(driver.status, ACKNOWLEDGE | DRIVER);
      driver.writeFeatures(featureSet(VIRTIO_F_VERSION_1));
      driver.addStatus(FEATURES_OK);
      assert.equal(driver.status, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }
  });

  it("features are settled with FEATURES_OK, queues with DRIVER_OK", () => {
    const { driver, device, transport } = machine();
    driver.negotiate();
    driver.writeFeatures(featureSet(ECHO_FEATURE));
    driver.setUpQueue(0, 4);
    driver.addStatus(DRIVER_OK);
    assert.equal(device.context?.features, featureSet(VIRTIO_F_VERSION_1));
    driver.write(VIRTIO_MMIO_QUEUE_NUM, 8);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    assert.equal(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    assert.equal(transport.counters.refusedWrites, 4);
  });

  it("a queue that was not set up is there, and always empty", () => {
    const { driver, device } = machine();
    driver.negotiate();
    driver.setUpQueue(0, 4);
    driver.addStatus(DRIVER_OK);
    assert.equal(device.context?.queues[1]?.isStopped, true);
    driver.notify(1);
    driver.notify(2);
    driver.notify(0xffff_ffff);
    assert.deepEqual(device.events, ["reset", "activate", "available 1"]);
  });

  const good: QueueAddresses = { size: 16, descriptorGpa: 0x1000, availableGpa: 0x2000, usedGpa: 0x3000 };
  const END = MACHINE_MEMORY_SIZE;
  const bad: Readonly<Record<string, Partial<QueueAddresses>>> = {
    "no descriptors": { size: 0 },
    "a size that is no power of two": { size: 12 },
    "more descriptors than allowed": { size: 32 },
    "2^31 descriptors": { size: 2 ** 31 },
    "a descriptor table off its alignment": { descriptorGpa: 0x1008 },
    "an available ring off its alignment": { availableGpa: 0x2001 },
    "a used ring off its alignment": { usedGpa: 0x3002 },
    "a descriptor table that leaves RAM": { descriptorGpa: END - 0xf0 },
    "an available ring that leaves RAM": { availableGpa: END - 36 },
    "a used ring that leaves RAM": { usedGpa: END - 132 },
    "an address above 2^53": { descriptorGpa: 2 ** 60 },
  };
  for (const [what, change] of Object.entries(bad)) {
    it(`a queue with ${what} needs a reset, and after it everything works`, () => {
      const m = machine();
      m.driver.negotiate();
      assert.equal(m.driver.announceQueue(0, { ...good, ...change }), false);
      assert.equal(m.driver.status & NEEDS_RESET, NEEDS_RESET);
      m.driver.addStatus(DRIVER_OK);
      assert.equal(m.driver.status & DRIVER_OK, 0);
      assert.equal(m.device.context, undefined);
      assert.equal(m.interrupts, 0);
      const [queue] = m.driver.start();
      queue?.add([IN, OUT]);
      m.driver.notify(0);
      assert.equal(queue?.collect().length, 1);
    });
  }

  it("rings that end with RAM are good, event fields included", () => {
    const { driver } = machine();
    driver.negotiate();
    const edge = { size: 16, descriptorGpa: END - 256, availableGpa: END - 38, usedGpa: END - 136 };
    assert.equal(driver.announceQueue(0, edge), true);
  });

  it("work beyond a turn's worth goes on in later turns, without another notification", () => {
    const m = machine();
    const [queue] = m.driver.start();
    for (let i = 0; i < 7; i++) queue?.add([IN, OUT]);
    m.driver.notify(0);
    assert.equal(queue?.collect().length, ECHO_BUDGET);
    m.driver.notify(0);
    assert.equal(queue.collect().length, 0, "notifying again does not jump the queue");
    assert.equal(m.loop.settle(), 3);
    assert.equal(queue.collect().length, 5);
  });

  it("reset in mid-work: nothing of it is done later, and the next life is not touched", () => {
    const m = machine();
    const [queue] = m.driver.start();
    for (let i = 0; i < 7; i++) queue?.add([IN, OUT]);
    m.driver.notify(0);
    const { context } = m.device;
    m.driver.reset();
    assert.equal(m.driver.status, 0);
    assert.equal(m.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    m.driver.start();
    const before = m.memory.bytes.slice();
    const { interrupts } = m;
    m.device.events.length = 0;
    m.loop.settle();
    context?.serve(0);
    if (context?.queues[0] !== undefined) context.interrupt(context.queues[0]);
    context?.configChanged();
    context?.fail("late");
    context?.queues[0]?.pushUsed(0, 1);
    context?.queues[0]?.publishUsed();
    assert.deepEqual(m.device.events, []);
    assert.equal(m.interrupts, interrupts);
    assert.deepEqual(m.memory.bytes, before);
    assert.equal(m.driver.status, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  });

  it("a broken ring: DEVICE_NEEDS_RESET, a configuration interrupt, a counter, one line a second", () => {
    const m = machine();
    for (let round = 0; round < 3; round++) {
      const [queue] = m.driver.start();
      queue?.publish(99);
      m.driver.notify(0);
      assert.equal(m.driver.status & NEEDS_RESET, NEEDS_RESET);
      assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
      assert.equal(m.device.context, undefined);
      m.driver.notify(0);
    }
    assert.equal(m.transport.counters.failures, 3);
    assert.equal(m.transport.counters.notifications, 3);
    assert.equal(m.interrupts, 3);
    assert.equal(m.log.length, 1);
    assert.match(m.log[0] ?? "", /^echo0: Descriptor 99 is not in a table of 16/);
    m.loop.advance(1000);
    const [queue] = m.driver.start();
    queue?.setAvailableIndex(0x8000);
    m.driver.notify(0);
    assert.equal(m.log.length, 2);
  });

  it("an error that is no driver's fault is not hidden", () => {
    const m = machine();
    m.driver.start();
    m.device.onAvailable = () => {
      throw new TypeError("a bug");
    };
    assert.throws(() => m.driver.notify(0), TypeError);
  });

  it("a guest that reads the window as memory sees the configuration as it is, announced or not", () => {
    const m = machine();
    let field = 1;
    m.device.readConfig = (offset) => (offset === 8 ? field : 0);
    const shown = (): number | undefined => m.registers[(VIRTIO_MMIO_CONFIG + 8) / 4];
    const change = (): number => ++field;
    // Before there is a driver nobody announces anything; its first step shows what has changed until then.
    change();
    m.driver.start();
    assert.equal(shown(), 2);
    change();
    assert.equal(shown(), 2);
    m.device.context?.configChanged();
    assert.equal(shown(), 3);
    m.device.writeConfig = change;
    m.driver.write(VIRTIO_MMIO_CONFIG, 0);
    assert.equal(shown(), 4);
    assert.equal(m.registers[VIRTIO_MMIO_STATUS / 4], ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  });

  it("QueueReady 0 stops a live queue", () => {
    const m = machine();
    const [queue] = m.driver.start();
    m.driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    m.driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert.equal(m.driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    queue?.add([IN, OUT]);
    m.driver.notify(0);
    assert.deepEqual(queue?.collect(), []);
  });

  it("FAILED ends the device until its reset", () => {
    const m = machine();
    const [queue] = m.driver.start();
    m.driver.addStatus(FAILED);
    assert.equal(m.driver.status & FAILED, FAILED);
    queue?.add([IN, OUT]);
    m.driver.notify(0);
    assert.deepEqual(queue?.collect(), []);
    assert.equal(m.driver.start().length, 2);
  });

  it("a change of the configuration counts its generation and interrupts; an ACK takes one bit", () => {
    const m = machine();
    m.driver.start();
    const before = m.driver.read(VIRTIO_MMIO_CONFIG_GENERATION);
    m.device.context?.configChanged();
    const { context } = m.device;
    if (context?.queues[0] !== undefined) context.interrupt(context.queues[0]);
    assert.equal(m.driver.read(VIRTIO_MMIO_CONFIG_GENERATION), before + 1);
    assert.equal(m.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING);
    m.driver.write(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    assert.equal(m.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
  });
});
