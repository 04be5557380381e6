// Needs: nothing. A network device whose queues somebody else serves, who is played by a test: when he does, and how the
// device takes them back.
import assert from "node:assert/strict";
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import { featureSet } from "../../../devices/virtio/features.js";
import {
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_STATUS,
} from "../../../devices/virtio/net/constants.js";
import { NetDevice } from "../../../devices/virtio/net/device.js";
import type { NetMoved, NetVhost } from "../../../devices/virtio/net/vhost.js";
import { Queue, type ServedQueue } from "../../../devices/virtio/queue.js";
import { StateReader, type State } from "../../../devices/state.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { frameOf, MemoryNet } from "../../helpers/memory-net.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const FEATURES = [VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX];
const TRANSPORT = featureSet(VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX);
const TX = 0x20_0000;
const RX = 0x28_0000;
const HEADER = 12;
const RX_BUFFER = 2048;
const EIO = 5;

/** Moves frames between the rings and the same network, and counts them as an interface does. */
class FakeVhost implements NetVhost {
  readonly name = "fake";
  features = TRANSPORT;
  /** Of `start`, from now on. */
  error = 0;
  starts = 0;
  notified: ((queueIndex: number) => void) | undefined;
  readonly #memory: FakeMemory;
  readonly #net: MemoryNet;
  #used: ((queueIndex: number) => void) | undefined;
  readonly #queues: (Queue | undefined)[] = [];
  readonly #moved = { rxFrames: 1000, rxBytes: 1000, txFrames: 1000, txBytes: 1000 };

  constructor(memory: FakeMemory, net: MemoryNet) {
    this.#memory = memory;
    this.#net = net;
  }

  get serves(): boolean[] {
    return [0, 1].map((index) => this.#queues[index] !== undefined);
  }

  start(_features: bigint, queues: readonly (ServedQueue | undefined)[]): number {
    this.starts++;
    if (this.error !== 0) return this.error;
    this.notified = undefined;
    queues.forEach((queue, index) => {
      if (queue === undefined) return;
      const nextUsed = this.#memory.loadU16(queue.usedGpa + 2);
      const indices = { nextAvailable: queue.nextAvailable, nextUsed };
      this.#queues[index] = new Queue(this.#memory, queue, { eventIndex: true, indirect: true }, indices);
    });
    return 0;
  }

  moved(): NetMoved {
    return { ...this.#moved };
  }

  kick(queueIndex: number): void {
    const queue = this.#queues[queueIndex];
    if (queueIndex !== 1 || queue === undefined) return;
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      this.#net.send(chain.readable);
      this.#moved.txFrames++;
      this.#moved.txBytes += chain.readable.byteLength - HEADER;
      queue.pushUsed(chain.head, 0);
    }
    queue.publishUsed();
  }

  /** A frame comes from the network. */
  arrive(frame: Uint8Array): void {
    const queue = this.#queues[0];
    const chain = queue?.pop();
    assert.ok(queue !== undefined && chain !== undefined && chain !== null, "no buffer");
    this.#memory.slice(chain.writable.gpas[0] ?? 0, frame.length).set(frame);
    this.#moved.rxFrames++;
    this.#moved.rxBytes += frame.length - HEADER;
    queue.pushUsed(chain.head, frame.length);
    queue.publishUsed();
    this.#used?.(0);
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.#used = used;
  }

  stopQueue(queueIndex: number): void {
    this.#queues[queueIndex] = undefined;
  }

  stop(notified: (queueIndex: number) => void): void {
    this.#queues.length = 0;
    this.notified = notified;
  }
}

interface Rig extends VirtioMachine {
  readonly device: NetDevice;
  readonly net: MemoryNet & { vhost?: NetVhost };
  readonly vhost: FakeVhost;
  readonly rxq: DriverQueue;
  readonly txq: DriverQueue;
}

function rig(prepare: (vhost: FakeVhost) => void = () => undefined): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const net = new MemoryNet(memory);
  const vhost = new FakeVhost(memory, net);
  Object.assign(net, { vhost });
  prepare(vhost);
  const log: string[] = [];
  const device = new NetDevice({
    name: "net0",
    backend: net,
    mac: Uint8Array.of(0x52, 0x54, 0, 1, 2, 3),
    loop,
    report: (line) => log.push(line),
  });
  const machine = virtioMachine(device, loop, memory);
  const [rxq, txq] = machine.driver.start({ features: FEATURES, queueSize: 8 });
  assert.ok(rxq !== undefined && txq !== undefined);
  const made = Object.assign(machine, { device, net, vhost, rxq, txq, log });
  for (let index = 0; index < 6; index++) addBuffer(made, index);
  return made;
}

function addBuffer(m: Rig, index: number): void {
  m.rxq.add([{ gpa: RX + (index % 8) * RX_BUFFER, length: RX_BUFFER, writable: true }]);
  m.driver.notify(0);
}

function savedStates(m: Rig): { readonly transport: StateReader; readonly device: StateReader } {
  const reader = (state: State): StateReader => new StateReader(JSON.parse(JSON.stringify(state)), "net0");
  return { transport: reader(m.transport.save()), device: reader(m.device.save()) };
}

/** Another machine in the same memory, for a state of `m`. */
function restoredWith(m: Rig, backend: MemoryNet): VirtioMachine {
  const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 4);
  const device = new NetDevice({ name: "net0", backend, mac, loop: m.loop, report: (line) => m.log.push(line) });
  return virtioMachine(device, m.loop, m.memory);
}

/** Sends a frame, and answers what has come out. */
function send(m: Rig, first: number): Uint8Array[] {
  m.memory.slice(TX, HEADER + 60).set(frameOf(60, first));
  m.txq.add([{ gpa: TX, length: HEADER + 60 }]);
  m.driver.notify(1);
  // As the descriptor that both sides listen to.
  m.vhost.notified?.(1);
  assert.equal(m.txq.collect().length, 1);
  return m.net.sent.splice(0);
}

/** `bytes` of the frames that have come in. */
function received(m: Rig): number[] {
  return m.rxq.collect().map(({ length }) => length);
}

describe("network device with vhost", () => {
  it("it has the queues from DRIVER_OK on, and what it moves is counted", () => {
    const m = rig();
    assert.deepEqual([m.vhost.serves, m.net.ready], [[true, true], undefined]);
    assert.deepEqual(send(m, 1), [frameOf(60, 1)]);
    m.vhost.arrive(frameOf(100));
    assert.deepEqual(received(m), [112]);
    const { txFrames, txBytes, rxFrames, rxBytes } = m.device.counters;
    assert.deepEqual([txFrames, txBytes, rxFrames, rxBytes], [1, 60, 1, 100]);
    // Interrupts go past the transport: a driver that looks why it was interrupted finds a reason.
    assert.equal(m.driver.takeInterrupt() & VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INT_VRING);
  });

  it("somebody follows pages: the device serves the queues where they stand, counts, and gives them back with all buffers", () => {
    const m = rig();
    m.vhost.arrive(frameOf(100));
    send(m, 1);
    m.device.followPages(true);
    assert.deepEqual(m.vhost.serves, [false, false]);
    m.net.arrive(frameOf(70), frameOf(80));
    assert.deepEqual(received(m), [112, 82, 92]);
    assert.deepEqual(send(m, 2), [frameOf(60, 2)]);
    m.device.followPages(false);
    assert.deepEqual([m.vhost.serves, m.net.ready], [[true, true], undefined]);
    // The three buffers that are left, of which the device held some.
    for (let length = 40; length < 43; length++) m.vhost.arrive(frameOf(length));
    assert.deepEqual(received(m), [52, 53, 54]);
    assert.deepEqual(send(m, 3), [frameOf(60, 3)]);
    assert.deepEqual([m.device.counters.rxFrames, m.device.counters.txFrames], [6, 3]);
    assert.deepEqual(m.log, []);
  });

  it("a guest that rests hears of used buffers through the transport", () => {
    const m = rig();
    m.device.relayInterrupts(true);
    m.vhost.arrive(frameOf(100));
    assert.deepEqual([m.interrupts, m.vhost.serves], [1, [true, true]]);
    m.device.relayInterrupts(false);
    m.vhost.arrive(frameOf(100));
    assert.equal(m.interrupts, 1);
    assert.deepEqual(received(m), [112, 112]);
  });

  it("two reasons at once: the queues go back after the second has gone", () => {
    const m = rig();
    m.device.setLink(false);
    m.device.followPages(true);
    m.device.setLink(true);
    assert.deepEqual(m.vhost.serves, [false, false]);
    m.device.followPages(false);
    assert.deepEqual(m.vhost.serves, [true, true]);
  });

  it("paused: nobody serves; saved and restored: the other one goes on with the same buffers", async () => {
    const m = rig();
    m.vhost.arrive(frameOf(100));
    await m.transport.quiesce();
    assert.deepEqual(m.vhost.serves, [false, false]);
    m.net.arrive(frameOf(70));
    assert.deepEqual(received(m), [112]);
    const saved = savedStates(m);

    const net = new MemoryNet(m.memory);
    const vhost = new FakeVhost(m.memory, net);
    const other = restoredWith(m, Object.assign(net, { vhost }));
    other.transport.restore(saved.transport, saved.device);
    assert.deepEqual(vhost.serves, [false, false], "a restored device is quiet");
    other.transport.unquiesce();
    assert.deepEqual(vhost.serves, [true, true]);
    for (let length = 40; length < 45; length++) vhost.arrive(frameOf(length));
    assert.deepEqual(received(m), [52, 53, 54, 55, 56]);

    // The one that was saved goes on, too, if nobody else does.
    m.transport.unquiesce();
    assert.deepEqual(m.vhost.serves, [true, true]);
  });

  it("limits, and a link that is down, are the device's business: it keeps the queues", () => {
    const limited = rig();
    limited.device.updateRateLimiters({ tx: { operations: { size: 1, oneTimeBurst: 0, refillTimeMs: 1000 } } });
    assert.deepEqual(limited.vhost.serves, [false, false]);
    assert.deepEqual(send(limited, 1), [frameOf(60, 1)]);
    const down = rig();
    down.device.setLink(false);
    assert.deepEqual([down.vhost.serves, send(down, 1)], [[false, false], []]);
    assert.equal(down.device.counters.txLinkDown, 1);
    down.device.setLink(true);
    assert.deepEqual(down.vhost.serves, [true, true]);
  });

  it("one that refuses is said once, and the device serves itself, over resets too", () => {
    const m = rig((vhost) => (vhost.error = EIO));
    assert.deepEqual(m.log, ["net0: fake does not serve it: error 5"]);
    assert.deepEqual(send(m, 1), [frameOf(60, 1)]);
    m.net.arrive(frameOf(70));
    assert.deepEqual(received(m), [82]);
    m.driver.start({ features: FEATURES, queueSize: 8 });
    assert.deepEqual([m.vhost.starts, m.log.length], [1, 1]);
  });

  it("a driver is offered of the transport's features what the other one knows; a saved one may have chosen more", async () => {
    const plain = rig((vhost) => (vhost.features = featureSet(VIRTIO_F_VERSION_1)));
    assert.equal(plain.driver.offeredFeatures() & TRANSPORT, featureSet(VIRTIO_F_VERSION_1));
    assert.ok(plain.vhost.serves.every(Boolean));
    const m = rig();
    assert.equal(m.driver.offeredFeatures() & TRANSPORT, TRANSPORT);
    await m.transport.quiesce();
    const saved = savedStates(m);
    const net = new MemoryNet(m.memory);
    const vhost = new FakeVhost(m.memory, net);
    Object.assign(vhost, { features: featureSet(VIRTIO_F_VERSION_1), error: EIO });
    const other = restoredWith(m, Object.assign(net, { vhost }));
    assert.equal(other.driver.offeredFeatures() & TRANSPORT, featureSet(VIRTIO_F_VERSION_1));
    other.transport.restore(saved.transport, saved.device);
    other.transport.unquiesce();
    net.arrive(frameOf(70));
    assert.deepEqual(received(m), [82]);
  });

  it("a queue that the driver stops, and a reset: nothing is touched any more", () => {
    const m = rig();
    m.device.queueStopped(0);
    assert.deepEqual(m.vhost.serves, [false, true]);
    m.driver.reset();
    assert.deepEqual(m.vhost.serves, [false, false]);
    assert.equal(m.device.counters.txFrames, 0);
  });
});
