// Needs: nothing. The registers and queues of a device, saved and restored.
import assert from "node:assert/strict";
import { StateError } from "../../../devices/state.js";
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_MMIO_CONFIG_GENERATION,
  VIRTIO_MMIO_DEVICE_FEATURES,
  VIRTIO_MMIO_INTERRUPT_STATUS,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_MMIO_QUEUE_NUM,
  VIRTIO_MMIO_QUEUE_READY,
  VIRTIO_MMIO_QUEUE_SEL,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { ECHO_FEATURE, EchoDevice } from "../../helpers/echo-device.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saved, saveQuiet, type SavedDevice } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const IN = { gpa: 0x20_0000, length: 4 };
const OUT = { gpa: 0x20_1000, length: 16, writable: true };

interface Machine extends VirtioMachine {
  readonly device: EchoDevice;
}

function machine(): Machine {
  const device = new EchoDevice();
  return Object.assign(virtioMachine(device), { device });
}

function started(features: readonly number[] = [VIRTIO_RING_F_EVENT_IDX]): { m: Machine; queue: DriverQueue } {
  const m = machine();
  const [queue] = m.driver.start({ features });
  assert.ok(queue !== undefined);
  return { m, queue };
}

/** Another process with the same guest memory. */
function next(m: VirtioMachine, state: SavedDevice): Machine {
  const device = new EchoDevice();
  return Object.assign(restoredMachine(state, device, m.loop, m.memory), { device });
}

function echo(m: VirtioMachine, queue: DriverQueue, value: number): void {
  m.memory.writeU32(IN.gpa, value);
  const head = queue.add([IN, OUT]);
  if (queue.wantsNotification()) m.driver.notify(0);
  m.loop.settle();
  assert.deepEqual(queue.collect(), [{ id: head, length: 4 }]);
  assert.equal(m.memory.readU32(OUT.gpa), value);
}

describe("transport state", function () {
  this.timeout(20_000);

  it("a driver goes on with its queue where it was, with and without EVENT_IDX", async () => {
    for (const features of [[], [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, ECHO_FEATURE]]) {
      const { m, queue } = started(features);
      for (let value = 1; value < 40; value++) echo(m, queue, value);
      const other = next(m, await saveQuiet(m));
      assert.deepEqual(other.device.events, ["restore", "activate", "available 0", "available 1"]);
      for (let value = 1; value < 40; value++) echo(other, queue, value);
      assert.equal(other.device.counters.chains, 78);
    }
  });

  it("what was notified while it was quiet, or not served yet, is served after the restore", async () => {
    const { m, queue } = started();
    const heads = Array.from({ length: 5 }, () => queue.add([IN, { ...OUT, length: 4 }]));
    // Two are served in this turn, the others wait for the next, which the quiet device does not take.
    m.driver.notify(0);
    const state = await saveQuiet(m);
    assert.equal(queue.collect().length, 2);
    m.driver.notify(0);
    m.loop.settle();
    assert.equal(queue.collect().length, 0);
    const other = next(m, state);
    m.loop.settle();
    assert.deepEqual(
      queue.collect().map(({ id }) => id),
      heads.slice(2),
    );
    assert.ok(other.interrupts > 0);
  });

  it("the same device goes on without a trace of its pause", async () => {
    const { m, queue } = started();
    const heads = Array.from({ length: 5 }, () => queue.add([IN, { ...OUT, length: 4 }]));
    m.driver.notify(0);
    await saveQuiet(m);
    const before = m.interrupts;
    m.device.context?.configChanged();
    m.driver.notify(1);
    assert.equal(m.interrupts, before);
    m.transport.unquiesce();
    m.loop.settle();
    assert.deepEqual(
      queue.collect().map(({ id }) => id),
      heads,
    );
    assert.ok(m.interrupts > before);
    assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    echo(m, queue, 7);
  });

  it("the indices of a ring go on at its wrap", async () => {
    const { m, queue } = started();
    for (let value = 0; value < 65_534; value++) {
      queue.add([IN, OUT]);
      m.driver.notify(0);
      queue.collect();
    }
    const state = await saveQuiet(m);
    assert.deepEqual((state.transport as { rings: unknown[] }).rings[0], { nextAvailable: 65_534, nextUsed: 65_534 });
    const other = next(m, state);
    for (let value = 1; value < 6; value++) echo(other, queue, value);
    const last = next(other, await saveQuiet(other));
    assert.deepEqual((saved(last).transport as { rings: unknown[] }).rings[0], { nextAvailable: 3, nextUsed: 3 });
  });

  it("registers read as before: selectors, features, status, generation, what has not been acknowledged", async () => {
    const m = machine();
    m.driver.negotiate([ECHO_FEATURE]);
    m.driver.setUpQueue(0, 8);
    m.driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    m.driver.write(VIRTIO_MMIO_QUEUE_NUM, 4);
    const state = await saveQuiet(m);
    const other = next(m, state);
    assert.deepEqual(saved(other), state);
    assert.deepEqual(other.registers, m.registers);
    assert.deepEqual(other.device.events, ["restore"]);
    // The driver ends its set-up in the new machine.
    const second = other.driver.setUpQueue(1, 4);
    other.driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    assert.equal(other.driver.read(VIRTIO_MMIO_QUEUE_READY), 1);
    other.driver.addStatus(4);
    second.add([IN, OUT]);
    other.driver.notify(1);
    assert.equal(second.collect().length, 1);

    const live = started();
    live.m.device.context?.configChanged();
    const restored = next(live.m, await saveQuiet(live.m));
    assert.equal(restored.interrupts, 1, "the signal may have been lost on its way");
    assert.equal(restored.driver.read(VIRTIO_MMIO_CONFIG_GENERATION), 1);
    assert.equal(restored.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert.equal(restored.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    restored.driver.write(0x14, 1);
    const again = next(restored, await saveQuiet(restored));
    assert.equal(again.interrupts, 0);
    assert.equal(again.driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 1);
  });

  it("a device that has failed, or that its driver has given up, is restored as such", async () => {
    const { m, queue } = started();
    queue.setAvailableIndex(1000);
    m.driver.notify(0);
    const other = next(m, await saveQuiet(m));
    assert.notEqual(other.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    assert.deepEqual(other.device.events, ["restore"]);
    const [fresh] = other.driver.start();
    assert.ok(fresh !== undefined);
    echo(other, fresh, 5);

    const given = started();
    given.m.driver.addStatus(VIRTIO_CONFIG_S_FAILED);
    const after = next(given.m, await saveQuiet(given.m));
    assert.notEqual(after.driver.status & VIRTIO_CONFIG_S_FAILED, 0);
    assert.deepEqual(after.device.events, ["restore"]);
  });

  it("a queue that its driver has stopped stays so", async () => {
    const { m, queue } = started();
    m.driver.stopQueue(0);
    const other = next(m, await saveQuiet(m));
    queue.add([IN, OUT]);
    other.driver.notify(0);
    assert.equal(queue.collect().length, 0);
    assert.equal(other.device.context?.queues[0]?.isStopped, true);
    assert.equal(other.device.context.queues[1]?.isStopped, false);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const { m, queue } = started();
    echo(m, queue, 3);
    const live = await saveQuiet(m);
    const bare = saved(machine());
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    for (const state of [live, bare]) {
      assertMutationsRefused(state, "state", (changed) => {
        const other = virtioMachine(new EchoDevice(), new FakeLoop(), memory);
        restoreSaved(other, changed);
        other.transport.unquiesce();
        other.driver.start();
      });
    }
  });

  it("what no driver could have brought about is refused with the reason", async () => {
    const { m } = started();
    const state = await saveQuiet(m);
    const transport = state.transport as Record<string, unknown> & { queues: Record<string, unknown>[] };
    const [first, second] = transport.queues;
    const cases: readonly (readonly [change: object, message: RegExp])[] = [
      [{ status: 7 }, /^state\.transport\.status 7 is not a status that a driver can have come to$/],
      [{ status: 0x4f }, /^state\.transport\.status 79 is not a status/],
      [{ driverFeatures: "0x20000001" }, /driverFeatures 0x20000001 has bits that this device does not offer: 0x1$/],
      [{ driverFeatures: "0x20000000" }, /driverFeatures "0x20000000" is not a choice with VIRTIO_F_VERSION_1$/],
      [{ interruptStatus: 4 }, /interruptStatus 4 is not a whole number from 0 to 3$/],
      [{ rings: [] }, /rings has 0 entries; there may be 2$/],
      [{ needsReset: true }, /rings has 2 entries; there may be 0$/],
      [{ queues: [{ ...first, size: 32 }, second] }, /queues\[0\] is a queue that cannot be: Queue of 32 descriptors/],
      [{ queues: [{ ...first, used: "0x400000" }, second] }, /queues\[0\] .*Used ring at 0x400000.*is not in RAM$/],
      [{ queues: [first, { ...second, available: "0x1" }] }, /queues\[1\] .*Available ring .* is not aligned to 2/],
      [{ queues: [{ ...first, descriptor: "0xfffffffffffffff0" }, second] }, /Descriptor table at .* is not in RAM$/],
    ];
    for (const [change, message] of cases) {
      const other = machine();
      assert.throws(
        () => restoreSaved(other, { ...state, transport: { ...transport, ...change } }),
        (error) => error instanceof StateError && message.test(error.message),
        String(message),
      );
      assert.deepEqual(
        other.device.events.filter((event) => event === "activate"),
        [],
      );
    }
    assert.equal(transport["status"], VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | 12);
  });

  it("indices that do not fit the rings are the guest's failure, not the monitor's", async () => {
    const { m, queue } = started();
    const state = await saveQuiet(m);
    const rings = [
      { nextAvailable: 40_000, nextUsed: 7 },
      { nextAvailable: 0, nextUsed: 0 },
    ];
    const other = next(m, { ...state, transport: { ...(state.transport as object), rings } });
    assert.notEqual(other.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    assert.equal(queue.collect().length, 0);
  });
});
