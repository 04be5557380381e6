// Needs: nothing. A socket device whose packet queues a kernel serves, who is played by a test: when it has them, and where the
// next one goes on.
import assert from "node:assert/strict";
import { VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_MMIO_INT_VRING } from "../../../devices/virtio/constants.js";
import { Queue, type ServedQueue } from "../../../devices/virtio/queue.js";
import { VSOCK_EVENT, VSOCK_RX, VSOCK_TX } from "../../../devices/virtio/vsock/constants.js";
import type { VsockVhost } from "../../../devices/virtio/vsock/vhost.js";
import { VhostVsockDevice } from "../../../devices/virtio/vsock/vhost-device.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { restoredMachine, saveQuiet, type SavedDevice } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const CID = 7;
const [EVENTS, TX, RX] = [0x10_0000, 0x20_0000, 0x30_0000];

/** Takes packets of the guest at once, each a byte, and brings the host's. */
class FakeVhost implements VsockVhost {
  /** Of `start`, from now on. */
  problem: string | undefined;
  readonly calls: string[] = [];
  readonly taken: number[] = [];
  readonly #memory: FakeMemory;
  #queues: readonly Queue[] = [];
  #used: ((queueIndex: number) => void) | undefined;

  constructor(memory: FakeMemory) {
    this.#memory = memory;
  }

  get serves(): boolean {
    return this.#queues.length > 0;
  }

  start(_features: bigint, queues: readonly [ServedQueue, ServedQueue]): string | undefined {
    this.calls.push("start");
    if (this.problem !== undefined) return this.problem;
    this.#queues = queues.map((queue) => {
      const nextUsed = this.#memory.loadU16(queue.usedGpa + 2);
      const indices = { nextAvailable: queue.nextAvailable, nextUsed };
      return new Queue(this.#memory, queue, { eventIndex: true, indirect: true }, indices);
    });
    this.kick(VSOCK_TX);
    return undefined;
  }

  kick(queueIndex: number): void {
    assert.ok(this.serves, "notified of a queue that it does not serve");
    const queue = this.#queues[queueIndex];
    if (queueIndex !== VSOCK_TX || queue === undefined) return;
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      this.taken.push(this.#memory.readU8(chain.readable.gpas[0] ?? 0));
      queue.pushUsed(chain.head, 0);
    }
    queue.publishUsed();
  }

  /** A packet of the host for the guest. */
  bring(byte: number): void {
    const queue = this.#queues[VSOCK_RX];
    const chain = queue?.pop();
    assert.ok(queue !== undefined && chain !== undefined && chain !== null, "no buffer");
    this.#memory.writeU8(chain.writable.gpas[0] ?? 0, byte);
    queue.pushUsed(chain.head, 1);
    queue.publishUsed();
    this.#used?.(VSOCK_RX);
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.#used = used;
  }

  stop(): void {
    this.calls.push("stop");
    this.#queues = [];
  }
}

interface Rig extends VirtioMachine {
  readonly device: VhostVsockDevice;
  readonly vhost: FakeVhost;
  rxq: DriverQueue;
  txq: DriverQueue;
  eventq: DriverQueue;
}

function deviceWith(loop: FakeLoop, memory: FakeMemory, guestCid = CID): Pick<Rig, "device" | "vhost"> {
  const vhost = new FakeVhost(memory);
  return { vhost, device: new VhostVsockDevice({ name: "vsock0", vhost, guestCid, loop }) };
}

function startDriver(m: VirtioMachine): Pick<Rig, "rxq" | "txq" | "eventq"> {
  const [rxq, txq, eventq] = m.driver.start({ features: [28, 29], queueSize: 8 });
  assert.ok(rxq !== undefined && txq !== undefined && eventq !== undefined);
  return { rxq, txq, eventq };
}

function rig(prepare: (vhost: FakeVhost) => void = () => undefined): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const made = deviceWith(loop, memory);
  prepare(made.vhost);
  const machine = virtioMachine(made.device, loop, memory);
  const m = Object.assign(machine, made, startDriver(machine));
  for (let index = 0; index < 6; index++) m.rxq.add([{ gpa: RX + index, length: 1, writable: true }]);
  for (let index = 0; index < 2; index++) addEventBuffer(m, index);
  return m;
}

function addEventBuffer(m: Rig, index: number): void {
  m.memory.writeU32(EVENTS + 4 * index, 0xffff_ffff);
  m.eventq.add([{ gpa: EVENTS + 4 * index, length: 4, writable: true }]);
  m.driver.notify(VSOCK_EVENT);
}

/** As a notification that reaches the kernel past this process, if the kernel listens. */
function send(m: Rig, byte: number): void {
  m.memory.writeU8(TX + byte, byte);
  m.txq.add([{ gpa: TX + byte, length: 1 }]);
  m.driver.notify(VSOCK_TX);
}

/** Packets that the guest has received, in their order. */
function received(m: Rig): number[] {
  return m.rxq.collect().map(({ id }) => m.memory.readU8(Number(m.memory.readU64(m.rxq.descriptorGpa + 16 * id))));
}

function next(m: Rig, state: SavedDevice, guestCid = CID): Rig {
  const made = deviceWith(m.loop, m.memory, guestCid);
  const machine = restoredMachine(state, made.device, m.loop, m.memory);
  return Object.assign(machine, made, { rxq: m.rxq, txq: m.txq, eventq: m.eventq });
}

describe("socket device with vhost", () => {
  it("the kernel has the packet queues from DRIVER_OK to reset, and the driver finds a reason for its interrupts", () => {
    const m = rig();
    assert.deepEqual([m.vhost.calls, m.driver.readConfigU32(0), m.driver.readConfigU32(4)], [["start"], CID, 0]);
    send(m, 1);
    m.vhost.bring(2);
    assert.deepEqual([m.vhost.taken, received(m)], [[1], [2]]);
    assert.equal(m.driver.takeInterrupt() & VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INT_VRING);
    m.driver.reset();
    assert.deepEqual([m.vhost.calls, m.vhost.serves], [["start", "stop"], false]);
    m.driver.notify(VSOCK_TX);
    Object.assign(m, startDriver(m));
    send(m, 3);
    assert.deepEqual(
      [m.vhost.calls, m.vhost.taken],
      [
        ["start", "stop", "start"],
        [1, 3],
      ],
    );
  });

  it("paused, or its pages followed: nothing is touched, and the kernel goes on where it has stopped", async () => {
    const m = rig();
    send(m, 1);
    m.vhost.bring(11);
    m.device.followPages(true);
    assert.equal(m.vhost.serves, false);
    send(m, 2);
    await m.transport.quiesce();
    m.device.followPages(false);
    assert.equal(m.vhost.serves, false, "it is paused still");
    send(m, 3);
    m.transport.unquiesce();
    assert.deepEqual(m.vhost.taken, [1, 2, 3]);
    for (let byte = 12; byte < 17; byte++) m.vhost.bring(byte);
    assert.deepEqual(received(m), [11, 12, 13, 14, 15, 16]);
    assert.deepEqual(m.eventq.collect(), [], "its connections are what they were");
  });

  it("restored: the driver is told that its connections are gone, and the kernel begins when it has seen to that", async () => {
    const m = rig();
    send(m, 1);
    const other = next(m, await saveQuiet(m), 8);
    assert.equal(other.driver.readConfigU32(0), 8, "another context id");
    send(other, 2);
    assert.deepEqual([other.vhost.calls, other.eventq.collect().length, m.memory.readU32(EVENTS)], [[], 1, 0]);
    addEventBuffer(other, 2);
    assert.deepEqual([other.vhost.calls, other.vhost.taken], [["start"], [2]]);
    for (let byte = 21; byte < 27; byte++) other.vhost.bring(byte);
    assert.deepEqual(received(other), [21, 22, 23, 24, 25, 26]);
  });

  it("restored: a driver that gives the event back late, or is paused meanwhile, is waited for ten seconds of its time", async () => {
    const m = rig();
    const other = next(m, await saveQuiet(m));
    other.loop.advance(9999);
    assert.deepEqual(other.vhost.calls, []);
    await other.transport.quiesce();
    other.loop.advance(1);
    assert.deepEqual(other.vhost.calls, []);
    other.transport.unquiesce();
    assert.deepEqual(other.vhost.calls, ["start"]);
  });

  it("a guest that rests hears of packets through the transport", () => {
    const m = rig();
    const before = m.interrupts;
    m.device.relayInterrupts(true);
    m.vhost.bring(1);
    assert.equal(m.interrupts, before + 1);
    m.device.relayInterrupts(false);
    m.vhost.bring(2);
    assert.equal(m.interrupts, before + 1);
  });

  it("a driver that takes one packet queue back, or sets one up alone, has no sockets; the event queue is none of theirs", () => {
    const m = rig();
    m.driver.stopQueue(VSOCK_EVENT);
    assert.ok(m.vhost.serves);
    m.driver.stopQueue(VSOCK_TX);
    assert.equal(m.vhost.serves, false);
    m.driver.notify(VSOCK_RX);
    m.device.followPages(true);
    m.device.followPages(false);
    assert.equal(m.vhost.serves, false);
  });

  it("a kernel that refuses: the device needs a reset, with the reason, and works after it", () => {
    const m = rig((vhost) => (vhost.problem = "VHOST_SET_VRING_ADDR failed with EFAULT (14)"));
    assert.equal(m.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_CONFIG_S_NEEDS_RESET);
    assert.match(m.log[0] ?? "", /^vsock0: The host's vhost-vsock does not serve it: VHOST_SET_VRING_ADDR failed/);
    m.vhost.problem = undefined;
    Object.assign(m, startDriver(m));
    send(m, 1);
    assert.deepEqual(m.vhost.taken, [1]);
  });

  it("a context id that no guest can have is a mistake of ours", () => {
    for (const cid of [2, 2 ** 32 - 1, 3.5]) {
      assert.throws(() => deviceWith(new FakeLoop(), new FakeMemory(16), cid), RangeError, String(cid));
    }
  });
});
