// Needs: nothing. The socket device saved with open streams, and restored: they end with an event, new ones work.
import assert from "node:assert/strict";
import { VIRTIO_CONFIG_S_NEEDS_RESET } from "../../../devices/virtio/constants.js";
import {
  VIRTIO_VSOCK_OP_REQUEST as REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE as RESPONSE,
  VIRTIO_VSOCK_OP_RST as RST,
  VIRTIO_VSOCK_OP_RW as RW,
} from "../../../devices/virtio/vsock/constants.js";
import { VsockDevice } from "../../../devices/virtio/vsock/device.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { FakeStreams } from "../../helpers/fake-streams.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saved, saveQuiet, type SavedDevice } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine } from "../../helpers/virtio-machine.js";
import { addBuffers, CID, openFromGuest, ops, received, send, type Rig } from "../../helpers/vsock-rig.js";

const EVENTS = 0x10_0000;
const EVENT_LENGTH = 4;

interface EventRig extends Rig {
  readonly eventq: DriverQueue;
}

function rig(features: readonly number[] = [29], eventBuffers = 3): EventRig {
  const loop = new FakeLoop();
  const streams = new FakeStreams();
  const device = new VsockDevice({ name: "vsock0", backend: streams, guestCid: CID, loop });
  const machine = virtioMachine(device, loop, new FakeMemory(MACHINE_MEMORY_SIZE));
  const [rxq, txq, eventq] = machine.driver.start({ features });
  assert.ok(rxq !== undefined && txq !== undefined && eventq !== undefined);
  const m = Object.assign(machine, { device, streams, rxq, txq, eventq });
  addBuffers(m, 16);
  for (let i = 0; i < eventBuffers; i++) addEventBuffer(m, i);
  return m;
}

function addEventBuffer(m: EventRig, index: number): void {
  m.memory.writeU32(EVENTS + EVENT_LENGTH * index, 0xffff_ffff);
  m.eventq.add([{ gpa: EVENTS + EVENT_LENGTH * index, length: EVENT_LENGTH, writable: true }]);
  if (m.eventq.wantsNotification()) m.driver.notify(2);
}

function next(m: EventRig, state: SavedDevice, guestCid = CID): EventRig {
  const streams = new FakeStreams();
  const device = new VsockDevice({ name: "vsock0", backend: streams, guestCid, loop: m.loop });
  const { rxq, txq, eventq } = m;
  return Object.assign(restoredMachine(state, device, m.loop, m.memory), { device, streams, rxq, txq, eventq });
}

/** The driver has taken the event, and gives a buffer back for the next one. */
function takeEvent(m: EventRig): number[] {
  const events = m.eventq.collect().map(({ id, length }) => {
    assert.equal(length, EVENT_LENGTH);
    return m.memory.readU32(Number(m.memory.readU64(m.eventq.descriptorGpa + 16 * id)));
  });
  events.forEach((_, index) => addEventBuffer(m, index));
  return events;
}

describe("socket device: state", function () {
  this.timeout(20_000);

  it("a restored driver is told once that its streams are gone, and new ones open in both directions", async () => {
    for (const features of [[], [29]]) {
      const m = rig(features);
      const stream = openFromGuest(m);
      const state = await saveQuiet(m);
      assert.deepEqual([stream.isDestroyed, m.eventq.collect()], [false, []]);
      const other = next(m, state);
      const before = other.interrupts;
      assert.ok(before > 0);
      assert.deepEqual(takeEvent(other), [0], "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET");
      assert.equal(other.device.connectionCount, 0);
      // Data of the old stream has nowhere to go.
      send(other, RW, {}, [1, 2, 3]);
      assert.deepEqual(ops(other), [RST]);
      const fresh = openFromGuest(other);
      send(other, RW, {}, [4]);
      assert.deepEqual([fresh.written, stream.written], [[4], []]);
      other.streams.open(77);
      assert.deepEqual(ops(other), [REQUEST]);
      assert.deepEqual(takeEvent(other), []);
      await other.transport.quiesce();
      other.transport.unquiesce();
      assert.deepEqual(takeEvent(other), []);
    }
  });

  it("a host program that comes before the driver has seen to the event waits until then", async () => {
    const m = rig();
    const other = next(m, await saveQuiet(m));
    other.streams.open(77);
    assert.deepEqual(received(other, false), []);
    assert.deepEqual(takeEvent(other), [0]);
    assert.deepEqual(ops(other), [REQUEST]);
  });

  it("a driver that never gives the buffer back keeps nobody waiting for long", async () => {
    const m = rig();
    const other = next(m, await saveQuiet(m));
    other.streams.open(77);
    other.loop.advance(999);
    assert.deepEqual(received(other, false), []);
    other.loop.advance(1);
    assert.deepEqual(ops(other), [REQUEST]);
    // And takes nothing away from it when it does so after all.
    assert.deepEqual(takeEvent(other), [0]);
    assert.equal(other.device.connectionCount, 1);
  });

  it("a driver without a buffer for events is told when it has one, and packets do not wait for that", async () => {
    for (const features of [[], [29]]) {
      const m = rig(features, 0);
      const other = next(m, await saveQuiet(m));
      other.streams.open(77);
      assert.deepEqual(ops(other), [REQUEST]);
      addEventBuffer(other, 0);
      assert.deepEqual(takeEvent(other), [0]);
    }
  });

  it("a buffer too small for an event is the driver's failure", async () => {
    const m = rig([29], 0);
    m.eventq.add([{ gpa: EVENTS, length: 3, writable: true }]);
    const other = next(m, await saveQuiet(m));
    assert.notEqual(other.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
  });

  it("a driver that has not come yet, or has begun anew, hears of nothing", async () => {
    const bare = virtioMachine(
      new VsockDevice({ name: "vsock0", backend: new FakeStreams(), guestCid: CID, loop: new FakeLoop() }),
    );
    const m = rig();
    const other = next(m, saved(bare));
    assert.equal(other.interrupts, 0);
    other.driver.start({ features: [29] });
    assert.equal(other.interrupts, 0);
    await Promise.resolve();
  });

  it("the guest may have another context id afterwards: the configuration decides", async () => {
    const m = rig();
    const state = await saveQuiet(m);
    assert.deepEqual(state.device, { guestCid: CID });
    const other = next(m, state, 1234);
    assert.equal(other.driver.readConfigU32(0), 1234);
  });

  it("in the same process streams stay open, and a guest that does not run has all the time to answer", async () => {
    const m = rig();
    const stream = openFromGuest(m);
    const asking = m.streams.open(77);
    assert.ok(asking !== undefined);
    assert.deepEqual(ops(m), [REQUEST]);
    await saveQuiet(m);
    const late = m.streams.open(78);
    stream.events?.data(Uint8Array.of(1, 2));
    m.loop.advance(60_000);
    assert.deepEqual([asking.isDestroyed, late?.isDestroyed, stream.isDestroyed], [false, false, false]);
    assert.equal(m.rxq.takeUsed(), false);
    m.transport.unquiesce();
    const packets = received(m);
    assert.deepEqual(packets.map(({ op }) => op).sort(), [REQUEST, RW].sort());
    send(m, RESPONSE, { destinationPort: 2 ** 30 + 1, sourcePort: 77 });
    assert.deepEqual(asking.log, [`opened ${String(2 ** 30 + 1)}`]);
    m.loop.advance(2000);
    assert.deepEqual([asking.isDestroyed, late?.isDestroyed], [false, true], "the time-out goes on");
    assert.deepEqual(m.eventq.collect(), []);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const m = rig();
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    assertMutationsRefused(await saveQuiet(m), "state", (changed) => {
      const loop = new FakeLoop();
      const device = new VsockDevice({ name: "vsock0", backend: new FakeStreams(), guestCid: CID, loop });
      const machine = virtioMachine(device, loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
      loop.advance(5000);
    });
  });
});
