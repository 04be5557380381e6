// Needs: nothing. A console saved in the middle of its input and output, and restored.
import assert from "node:assert/strict";
import { VIRTIO_CONSOLE_F_SIZE } from "../../../devices/virtio/console/constants.js";
import { CONSOLE_INPUT_BYTES, ConsoleDevice } from "../../../devices/virtio/console/device.js";
import { VIRTIO_MMIO_INT_CONFIG, VIRTIO_RING_F_EVENT_IDX } from "../../../devices/virtio/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saveQuiet, type SavedDevice } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const BUFFER = 0x20_0000;
const PIECE = 16 * 1024;

interface Terminal {
  readonly device: ConsoleDevice;
  readonly output: number[];
  isReady: boolean;
}

function terminal(hasBreak = false): Terminal {
  const output: number[] = [];
  const host = {
    transmit: (bytes: Uint8Array) => {
      output.push(...bytes);
      return result.isReady;
    },
    roomAvailable: () => undefined,
  };
  const device = new ConsoleDevice({ name: "console0", host, size: { columns: 80, rows: 25 }, hasBreak });
  const result: Terminal = { device, output, isReady: true };
  return result;
}

interface Rig extends VirtioMachine, Terminal {
  readonly receiveq: DriverQueue;
  readonly transmitq: DriverQueue;
}

function rig(hasBreak = false): Rig {
  const side = terminal(hasBreak);
  const machine = virtioMachine(side.device);
  const [receiveq, transmitq] = machine.driver.start({ features: [VIRTIO_CONSOLE_F_SIZE, VIRTIO_RING_F_EVENT_IDX] });
  assert.ok(receiveq !== undefined && transmitq !== undefined);
  return Object.assign(side, machine, { receiveq, transmitq });
}

function next({ loop, memory, receiveq, transmitq }: Rig, state: SavedDevice): Rig {
  const side = terminal();
  return Object.assign(side, restoredMachine(state, side.device, loop, memory), { receiveq, transmitq });
}

describe("console device: state", function () {
  this.timeout(20_000);

  it("output that a slow host had half of goes on with the other half", async () => {
    const m = rig();
    const length = 3 * PIECE + 5;
    for (let i = 0; i < length; i++) m.memory.writeU8(BUFFER + i, (i * 7) & 0xff);
    m.isReady = false;
    const heads = [m.transmitq.add([{ gpa: BUFFER, length }]), m.transmitq.add([{ gpa: BUFFER, length: 2 }])];
    m.driver.notify(1);
    assert.equal(m.output.length, PIECE);
    const state = await saveQuiet(m);
    assert.equal((state.device as { sentBytes: number }).sentBytes, PIECE);
    const other = next(m, state);
    other.loop.settle();
    const all = [...m.output, ...other.output];
    assert.deepEqual(all, [...m.memory.slice(BUFFER, length), ...m.memory.slice(BUFFER, 2)]);
    assert.deepEqual(
      m.transmitq.collect().map(({ id }) => id),
      heads,
    );
    // Saved again before the guest's queue was served, it is still known how much is out.
    const restored = virtioMachine(terminal().device, m.loop, m.memory);
    restoreSaved(restored, state);
    assert.deepEqual(JSON.parse(JSON.stringify(restored.transport.device.save())), state.device);
  });

  it("input that the guest has not taken waits for it, over the ring's end, and a break begun is known", async () => {
    const m = rig(true);
    m.device.receive(new Uint8Array(CONSOLE_INPUT_BYTES - 2).fill(1));
    m.receiveq.add([{ gpa: BUFFER, length: CONSOLE_INPUT_BYTES - 3, writable: true }]);
    m.driver.notify(0);
    m.receiveq.collect();
    m.device.receive(Uint8Array.of(2, 3, 4, 5));
    m.device.receiveBreak();
    const state = await saveQuiet(m);
    const { input, isAfterBreak } = state.device as { input: string; isAfterBreak: boolean };
    assert.deepEqual([...Buffer.from(input, "base64")], [1, 2, 3, 4, 5, 0x0f]);
    assert.equal(isAfterBreak, true);
    const other = next(m, state);
    m.receiveq.add([{ gpa: BUFFER, length: 100, writable: true }]);
    other.driver.notify(0);
    assert.equal(m.receiveq.collect()[0]?.length, 6);
    assert.deepEqual([...m.memory.slice(BUFFER, 6)], [1, 2, 3, 4, 5, 0x0f]);
    other.device.receive(Uint8Array.of(9));
    m.receiveq.add([{ gpa: BUFFER, length: 1, writable: true }]);
    other.driver.notify(0);
    assert.equal(m.memory.readU8(BUFFER), 9);
  });

  it("the guest keeps the size that it knows, until the new terminal tells its own", async () => {
    const m = rig();
    m.device.resize({ columns: 132, rows: 43 });
    m.driver.takeInterrupt();
    const other = next(m, await saveQuiet(m));
    assert.equal(other.driver.readConfigU32(0), 132 + (43 << 16));
    other.device.resize({ columns: 100, rows: 30 });
    assert.equal(other.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert.equal(other.driver.readConfigU32(0), 100 + (30 << 16));
  });

  it("what comes from the host while it is quiet reaches the guest when it goes on", async () => {
    const m = rig();
    m.receiveq.add([{ gpa: BUFFER, length: 8, writable: true }]);
    m.driver.notify(0);
    await saveQuiet(m);
    assert.equal(m.device.receive(Uint8Array.of(7, 8)), 2);
    m.device.outputReady();
    assert.equal(m.receiveq.collect().length, 0);
    m.transport.unquiesce();
    assert.equal(m.receiveq.collect()[0]?.length, 2);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const m = rig();
    m.isReady = false;
    m.transmitq.add([{ gpa: BUFFER, length: 2 * PIECE }]);
    m.driver.notify(1);
    m.device.receive(Uint8Array.of(1, 2, 3));
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    assertMutationsRefused(await saveQuiet(m), "state", (changed) => {
      const loop = new FakeLoop();
      const machine = virtioMachine(terminal().device, loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
      loop.settle();
    });
  });
});
