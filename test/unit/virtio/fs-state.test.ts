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
const ANSWER = 0x21_0000;

/** FUSE_INIT with 16 bytes of body. */
function initRequest(): Uint8Array {
  return new Uint8Array(Uint32Array.of(56, 26, 2, 0, 0, 0, 0, 0, 0, 0, 7, 31, 0x2_0000, 0xff).buffer);
}

function fs() {
  const server = new FakeFsServer();
  return { server, device: new FsDevice({ name: "share0", tag: Buffer.from("code"), backend: server }) };
}

describe("fs: state", function () {
  this.timeout(20_000);

  it("before the first request a server knows of no queue, here and after a restore; then of all that was negotiated", async () => {
    const loop = new FakeLoop();
    const m = virtioMachine(fs().device, loop);
    const [, requests] = m.driver.start({ features: [29], queueSize: 8 });
    assert.ok(requests !== undefined);
    const state = await saveQuiet(m);
    assert.deepEqual(state.device, { init: null });
    const { device, server } = fs();
    const other = restoredMachine(state, device, loop, m.memory);
    assert.deepEqual(server.calls, []);
    assert.equal(other.interrupts, 0);
    assert.equal(other.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    requests.add([{ gpa: REQUEST, length: 40 }]);
    other.transport.notify(1);
    assert.deepEqual(server.calls, ["start 120000000", "kick 1"]);
    assert.equal(server.queues[1]?.nextAvailable, 0);
  });

  it("a session that has begun, and no more, begins again with another server, which goes on behind it", async () => {
    const loop = new FakeLoop();
    const { device } = fs();
    const m = virtioMachine(device, loop);
    const queues = m.driver.start({ queueSize: 8 });
    const [, requests] = queues;
    assert.ok(requests !== undefined);
    const init = initRequest();
    m.memory.slice(REQUEST, init.length).set(init);
    requests.add([
      { gpa: REQUEST, length: 40 },
      { gpa: REQUEST + 40, length: init.length - 40 },
      { gpa: ANSWER, length: 80, writable: true },
    ]);
    m.driver.notify(1);
    assert.notEqual(device.whyNotSaved(), undefined, "it is not answered yet");
    // What its server does.
    m.memory.writeU32(requests.usedGpa + 8, 80);
    m.memory.storeU16(requests.usedGpa + 2, 1);
    assert.equal(device.whyNotSaved(), undefined);
    // The driver may use its buffers for something else meanwhile.
    m.memory.slice(REQUEST, 100).fill(0xff);
    const state = await saveQuiet(m);
    assert.deepEqual(state.device, { init: Buffer.from(init).toString("base64") });
    const second = fs();
    restoredMachine(state, second.device, loop, m.memory);
    assert.deepEqual(second.server.calls, ["start 100000000 after 56 bytes", "kick 0", "kick 1"]);
    assert.deepEqual(
      second.server.queues.map((queue) => queue?.nextAvailable),
      [0, 1],
    );
    assert.equal(second.device.whyNotSaved(), undefined);
    requests.add([{ gpa: REQUEST, length: 40 }]);
    assert.notEqual(second.device.whyNotSaved(), undefined);
  });

  it("a saved beginning that is none is refused with the reason", async () => {
    const loop = new FakeLoop();
    const m = virtioMachine(fs().device, loop);
    const { transport } = await saveQuiet(m);
    const init = initRequest();
    const other = Uint8Array.from(init);
    other[4] = 1;
    for (const bytes of [init.subarray(0, 40), init.subarray(0, 55), other, new Uint8Array(300)]) {
      const device = { init: Buffer.from(bytes).toString("base64") };
      assert.throws(() => restoreSaved(virtioMachine(fs().device, loop), { transport, device }), {
        message: /^state\.device\.init .* is not (a request that begins a session|base64 of 0 to 256 bytes)$/,
      });
    }
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
