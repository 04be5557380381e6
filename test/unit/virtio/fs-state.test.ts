// Needs: nothing. The file system device, saved and restored: another server takes up the queues, if nothing was ever in them.
import assert from "node:assert/strict";
import { VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_INT_VRING } from "../../../devices/virtio/constants.js";
import { FsDevice } from "../../../devices/virtio/fs/device.js";
import { FakeFsServer } from "../../helpers/fake-fs-server.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoredMachine, restoreSaved, saveQuiet } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine } from "../../helpers/virtio-machine.js";

const REQUEST = 0x20_0000;

function fs() {
  const server = new FakeFsServer();
  return { server, device: new FsDevice({ name: "share0", tag: Buffer.from("code"), backend: server }) };
}

describe("fs: state", function () {
  this.timeout(20_000);

  it("another server is told where the queues are, what was negotiated, and where they go on; nobody is interrupted for it", async () => {
    const loop = new FakeLoop();
    const first = fs();
    const m = virtioMachine(first.device, loop);
    const queues = m.driver.start({ features: [29], queueSize: 8 });
    const state = await saveQuiet(m);
    assert.deepEqual(state.device, {});
    const second = fs();
    const other = restoredMachine(state, second.device, loop, m.memory);
    assert.deepEqual(second.server.calls, ["start 120000000", "kick 0", "kick 1"]);
    assert.deepEqual(second.server.queues, first.server.queues);
    assert.equal(other.interrupts, 0);
    assert.equal(other.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    assert.equal(queues.length, 2);

    const rings = (state.transport as { rings: { nextAvailable: number }[] }).rings;
    const [, requests] = rings;
    assert.ok(requests !== undefined);
    requests.nextAvailable = 65_535;
    const third = fs();
    restoredMachine(state, third.device, loop, m.memory);
    assert.deepEqual(
      third.server.queues.map((queue) => queue?.nextAvailable),
      [0, 65_535],
    );
  });

  it("before there is a driver, and after it has gone, there is nothing to tell", async () => {
    const loop = new FakeLoop();
    const m = virtioMachine(fs().device, loop);
    for (const isReset of [false, true]) {
      if (isReset) {
        m.driver.start();
        m.driver.reset();
      }
      assert.equal(m.transport.device.whyNotSaved?.(), undefined);
      const second = fs();
      restoredMachine(await saveQuiet(m), second.device, loop, m.memory);
      assert.deepEqual(second.server.calls, []);
    }
  });

  it("a queue that has had a request says so, for good: waiting, answered, and after 65,536 of them", () => {
    for (const which of [0, 1]) {
      const { device } = fs();
      const m = virtioMachine(device, new FakeLoop());
      const queue = m.driver.start({ queueSize: 4 })[which];
      assert.ok(queue !== undefined);
      assert.equal(device.whyNotSaved(), undefined);
      queue.add([{ gpa: REQUEST, length: 40 }]);
      const why = "the guest has used it, and what it has open there only its server knows";
      assert.equal(device.whyNotSaved(), why);
      m.memory.storeU16(queue.availableGpa + 2, 0);
      assert.equal(device.whyNotSaved(), undefined);
      m.memory.writeU32(queue.usedGpa + 4 + 8 * 3 + 4, 16);
      assert.equal(device.whyNotSaved(), why);
      m.driver.reset();
      assert.equal(device.whyNotSaved(), undefined);
    }
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const loop = new FakeLoop();
    const m = virtioMachine(fs().device, loop);
    m.driver.start();
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    assertMutationsRefused(await saveQuiet(m), "state", (changed) => {
      const machine = virtioMachine(fs().device, loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
    });
  });
});
