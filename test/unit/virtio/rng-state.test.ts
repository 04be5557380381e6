// Needs: nothing. The entropy device, saved and restored.
import assert from "node:assert/strict";
import { RngDevice } from "../../../devices/virtio/rng/device.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saveQuiet } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine } from "../../helpers/virtio-machine.js";

const BUFFER = 0x20_0000;
const rateLimiter = { bandwidth: { size: 64, oneTimeBurst: 0, refillTimeMs: 100 } };

function rng(loop: FakeLoop, byte: number): RngDevice {
  return new RngDevice({ name: "rng0", source: { fill: (bytes) => void bytes.fill(byte) }, rateLimiter, loop });
}

describe("entropy device: state", function () {
  this.timeout(20_000);

  it("a buffer that waits for the limiter is filled after the restore, with bytes of the new host", async () => {
    const loop = new FakeLoop();
    const m = virtioMachine(rng(loop, 1), loop);
    const [queue] = m.driver.start();
    assert.ok(queue !== undefined);
    for (const at of [0, 64]) queue.add([{ gpa: BUFFER + at, length: 64, writable: true }]);
    m.driver.notify(0);
    assert.equal(queue.collect().length, 1);
    const state = await saveQuiet(m);
    assert.deepEqual(state.device, { limiter: { bandwidth: { tokens: 0, burst: 0 }, operations: null } });
    const other = restoredMachine(state, rng(loop, 2), loop, m.memory);
    assert.equal(queue.collect().length, 0);
    loop.advance(100);
    assert.equal(queue.collect().length, 1, "once, by one of the two");
    assert.deepEqual([m.memory.readU8(BUFFER + 63), m.memory.readU8(BUFFER + 64)], [1, 2]);
    assert.ok(other.interrupts > 0);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const loop = new FakeLoop();
    const m = virtioMachine(rng(loop, 1), loop);
    m.driver.start();
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    assertMutationsRefused(await saveQuiet(m), "state", (changed) => {
      const machine = virtioMachine(rng(loop, 1), loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
    });
  });
});
