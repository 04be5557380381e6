// Needs: nothing.
import assert from "node:assert/strict";
import {
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_RING_F_EVENT_IDX,
} from "../../../devices/virtio/constants.js";
import { hasFeature } from "../../../devices/virtio/features.js";
import {
  VIRTIO_NET_CONFIG_MTU,
  VIRTIO_NET_CONFIG_STATUS,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
} from "../../../devices/virtio/net/constants.js";
import { NetDevice, type NetDeviceOptions } from "../../../devices/virtio/net/device.js";
import { parseMacAddress } from "../../../devices/virtio/net/mac-address.js";
import type { DriverBuffer, DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { frameOf, MemoryNet } from "../../helpers/memory-net.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
const PLAIN = [VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_RING_F_EVENT_IDX];
const MERGEABLE = [...PLAIN, VIRTIO_NET_F_MRG_RXBUF];
const LARGE = [...MERGEABLE, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4];
const TX = 0x20_0000;
const RX = 0x28_0000;
const HEADER = 12;

interface Rig extends VirtioMachine {
  readonly device: NetDevice;
  readonly net: MemoryNet;
  readonly rxq: DriverQueue;
  readonly txq: DriverQueue;
}

interface RigOptions extends Partial<NetDeviceOptions> {
  readonly features?: readonly number[];
  readonly queueSize?: number;
  readonly canOffload?: boolean;
}

function rig({ features = PLAIN, queueSize, canOffload, ...options }: RigOptions = {}): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const net = new MemoryNet(memory, canOffload);
  const log: string[] = [];
  const report = (line: string): void => void log.push(line);
  const device = new NetDevice({ name: "net0", backend: net, mac: MAC, loop, report, ...options });
  const machine = virtioMachine(device, loop, memory);
  const [rxq, txq] = machine.driver.start({ features, ...(queueSize === undefined ? {} : { queueSize }) });
  assert.ok(rxq !== undefined && txq !== undefined);
  return Object.assign(machine, { device, net, rxq, txq, log });
}

/** Makes `count` receive buffers of `length` bytes available, one after the other in memory. */
function addBuffers(m: Rig, count: number, length: number): void {
  for (let i = 0; i < count; i++) m.rxq.add([{ gpa: RX + i * length, length, writable: true }]);
  m.driver.notify(0);
}

function lengths(queue: DriverQueue): number[] {
  return queue.collect().map(({ length }) => length);
}

function send(m: Rig, ...buffers: readonly DriverBuffer[]): void {
  m.txq.add(buffers);
  m.driver.notify(1);
}

describe("network device", () => {
  it("says what it is: address, link, MTU, features", () => {
    const { driver, transport } = rig({ mtu: 9000 });
    const mac = Array.from({ length: 6 }, (_, index) => transport.read(VIRTIO_MMIO_CONFIG + index, 1));
    assert.deepEqual(mac, [...MAC]);
    assert.equal(transport.read(VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_STATUS, 2), 1);
    assert.equal(transport.read(VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_MTU, 2), 9000);
    assert.equal(hasFeature(driver.offeredFeatures(), VIRTIO_NET_F_MTU), true);
    assert.equal(hasFeature(driver.offeredFeatures(), VIRTIO_NET_F_CSUM), true);
    const simple = rig({ canOffload: false }).driver.offeredFeatures();
    for (const bit of [VIRTIO_NET_F_MTU, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6]) {
      assert.equal(hasFeature(simple, bit), false);
    }
    assert.equal(hasFeature(simple, VIRTIO_NET_F_MRG_RXBUF), true);
  });

  it("tells the backend what the driver can take; TSO only with GUEST_CSUM", () => {
    assert.deepEqual(rig({ features: LARGE }).net.offloads, { checksum: true, tso4: true, tso6: false });
    assert.deepEqual(rig({ features: [VIRTIO_NET_F_GUEST_TSO4] }).net.offloads, {
      checksum: false,
      tso4: false,
      tso6: false,
    });
  });

  it("the link goes down and up: status, interrupt, and nothing is sent meanwhile", () => {
    const m = rig();
    m.device.setLink(false);
    assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert.equal(m.transport.read(VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_STATUS, 2), 0);
    send(m, { gpa: TX, length: HEADER + 60 });
    assert.equal(m.net.sent.length, 0);
    assert.equal(m.device.counters.txLinkDown, 1);
    m.device.setLink(true);
    m.device.setLink(true);
    assert.equal(m.transport.counters.configInterrupts, 2);
    send(m, { gpa: TX, length: HEADER + 60 });
    assert.equal(m.net.sent.length, 1);
  });

  it("MAC addresses are read from text, those of groups and none are refused", () => {
    assert.deepEqual(parseMacAddress("52:54:00:Ab:cd:0f"), Uint8Array.of(0x52, 0x54, 0, 0xab, 0xcd, 0xf));
    for (const text of ["", "52:54:00:ab:cd", "52-54-00-ab-cd-ef", "01:00:00:00:00:01", "00:00:00:00:00:00"]) {
      assert.equal(parseMacAddress(text), undefined, text);
    }
  });
});

describe("network device: sending", () => {
  it("a frame reaches the backend, however it is cut, and one interrupt answers a batch", () => {
    const m = rig();
    const frame = frameOf(60);
    m.memory.slice(TX, frame.length).set(frame);
    for (let i = 0; i < 3; i++) {
      m.txq.add([
        { gpa: TX, length: 5 },
        { gpa: TX + 5, length: 20 },
        { gpa: TX + 25, length: frame.length - 25 },
      ]);
    }
    m.txq.wantInterrupt();
    m.driver.notify(1);
    assert.deepEqual(m.net.sent, [frame, frame, frame]);
    assert.deepEqual(lengths(m.txq), [0, 0, 0]);
    assert.equal(m.interrupts, 1);
    assert.equal(m.device.counters.txBytes, 180);
  });

  const bounds: readonly (readonly [number, "txTooShort" | "txTooLong" | undefined])[] = [
    [HEADER - 1, "txTooShort"],
    [HEADER, "txTooShort"],
    [HEADER + 13, "txTooShort"],
    [HEADER + 14, undefined],
    [HEADER + 65_553, undefined],
    [HEADER + 65_554, "txTooLong"],
    [0x10_0000, "txTooLong"],
  ];
  for (const [length, counter] of bounds) {
    it(`a frame of ${String(length)} bytes with its header is ${counter ?? "sent"}`, () => {
      const m = rig();
      send(m, { gpa: TX, length });
      assert.equal(m.net.sent.length, counter === undefined ? 1 : 0);
      if (counter !== undefined) assert.equal(m.device.counters[counter], 1);
      assert.deepEqual(lengths(m.txq), [0]);
    });
  }

  it("a host that can take no more is asked again, and no frame is lost or counted twice", () => {
    const m = rig({ txRateLimiter: { operations: { size: 2, oneTimeBurst: 0, refillTimeMs: 1000 } } });
    m.net.sendResult = 0;
    send(m, { gpa: TX, length: HEADER + 60 });
    send(m, { gpa: TX, length: HEADER + 60 });
    assert.equal(m.loop.timerCount, 1);
    m.loop.advance(5);
    assert.equal(m.device.counters.txBusy, 6);
    assert.deepEqual(lengths(m.txq), []);
    m.net.sendResult = undefined;
    m.loop.advance(1);
    assert.equal(m.net.sent.length, 2);
    assert.equal(m.device.counters.txThrottled, 0);
  });

  it("a frame that the host refuses is dropped, with a counter and a line", () => {
    const m = rig();
    m.net.sendResult = -22;
    send(m, { gpa: TX, length: HEADER + 60 });
    send(m, { gpa: TX, length: HEADER + 60 });
    assert.deepEqual(lengths(m.txq), [0, 0]);
    assert.equal(m.device.counters.txErrors, 2);
    assert.deepEqual(m.log, ["net0: Sending failed: error 22"]);
  });

  it("the limiter holds frames back; a reset takes its timer back", () => {
    const m = rig({ txRateLimiter: { bandwidth: { size: 100, oneTimeBurst: 0, refillTimeMs: 100 } } });
    for (let i = 0; i < 3; i++) send(m, { gpa: TX, length: HEADER + 100 });
    assert.equal(m.net.sent.length, 1);
    m.loop.advance(100);
    assert.equal(m.net.sent.length, 2);
    m.driver.reset();
    assert.equal(m.loop.timerCount, 0);
    m.loop.advance(1000);
    assert.equal(m.net.sent.length, 2);
  });

  it("a driver that never stops sending does not hold the thread", () => {
    const m = rig();
    const head = m.txq.write([{ gpa: TX, length: HEADER + 60 }]);
    m.txq.publish(head);
    const original = m.net.send.bind(m.net);
    m.net.send = (frame) => {
      m.txq.publish(head);
      return original(frame);
    };
    m.driver.notify(1);
    assert.equal(m.net.sent.length, 128);
    assert.equal(m.loop.turn(), true);
    assert.equal(m.net.sent.length, 256);
  });
});

describe("network device: receiving", () => {
  it("a frame fills a buffer, num_buffers says 1, one interrupt for a batch", () => {
    const m = rig();
    addBuffers(m, 4, 2048);
    m.rxq.wantInterrupt();
    m.net.arrive(frameOf(60, 7), frameOf(100, 9));
    assert.deepEqual(lengths(m.rxq), [72, 112]);
    const expected = frameOf(60, 7);
    expected[10] = 1;
    assert.deepEqual(m.memory.slice(RX, 72), expected);
    assert.equal(m.memory.readU16(RX + 2048 + 10), 1);
    assert.equal(m.interrupts, 1);
    assert.equal(m.device.counters.rxFrames, 2);
    assert.equal(m.device.counters.rxBytes, 160);
  });

  it("frames that are there before the driver are received when it has come", () => {
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    const loop = new FakeLoop();
    const net = new MemoryNet(memory);
    const device = new NetDevice({ name: "net0", backend: net, mac: MAC, loop, report: () => undefined });
    const m = virtioMachine(device, loop, memory);
    net.arrive(frameOf(60));
    const [rxq] = m.driver.start({ features: PLAIN });
    assert.ok(rxq !== undefined);
    rxq.add([{ gpa: RX, length: 2048, writable: true }]);
    m.driver.notify(0);
    assert.deepEqual(lengths(rxq), [72]);
  });

  it("a header over several descriptors gets its num_buffers all the same", () => {
    for (const cut of [10, 11]) {
      const m = rig();
      m.memory.slice(RX, 4096).fill(0xff);
      m.rxq.add([
        { gpa: RX, length: cut, writable: true },
        { gpa: RX + 100, length: 2000, writable: true },
      ]);
      m.driver.notify(0);
      m.net.arrive(frameOf(60));
      assert.deepEqual(lengths(m.rxq), [72]);
      const bytes = [...m.memory.slice(RX, cut), ...m.memory.slice(RX + 100, 72 - cut)];
      const expected = frameOf(60);
      expected[10] = 1;
      assert.deepEqual(bytes, [...expected]);
      assert.equal(m.memory.readU8(RX + cut), 0xff);
    }
  });

  it("both bytes of num_buffers are ours, whatever the backend has written there and wherever they lie", () => {
    for (const cuts of [[12], [10, 1, 1], [11, 1], [9, 1, 2], [5, 6], [1, 1, 8, 2], [12, 1]]) {
      const m = rig();
      const ranges = [...cuts, 1000].map((length, index) => ({ gpa: RX + 4096 * index, length, writable: true }));
      m.rxq.add(ranges);
      m.driver.notify(0);
      const frame = frameOf(60).fill(0xee, 10, 12);
      m.net.arrive(frame);
      assert.deepEqual(lengths(m.rxq), [72]);
      const bytes = Buffer.concat(ranges.map(({ gpa, length }) => m.memory.slice(gpa, length)));
      const expected = frameOf(60);
      expected[10] = 1;
      assert.deepEqual([...bytes.subarray(0, 72)], [...expected], String(cuts));
    }
  });

  it("a large frame is spread over buffers, with every length and the count of them", () => {
    const m = rig({ features: LARGE });
    addBuffers(m, 50, 1536);
    m.net.arrive(frameOf(4000, 3), frameOf(60));
    assert.deepEqual(lengths(m.rxq), [1536, 1536, 940, 72]);
    const expected = frameOf(4000, 3);
    expected[10] = 3;
    assert.deepEqual(m.memory.slice(RX, 4012), expected);
    assert.equal(m.memory.readU16(RX + 3 * 1536 + 10), 1);
  });

  it("waits for buffers for the largest frame, unwatched, and goes on when they come", () => {
    const m = rig({ features: LARGE });
    assert.equal(m.net.ready, undefined);
    addBuffers(m, 40, 1536);
    assert.equal(m.net.ready, undefined);
    m.net.arrive(frameOf(60_000));
    assert.deepEqual(lengths(m.rxq), []);
    addBuffers(m, 2, 1536);
    m.rxq.add([{ gpa: RX, length: 1536, writable: true }]);
    assert.equal(m.rxq.wantsNotification(), true);
    m.driver.notify(0);
    assert.equal(lengths(m.rxq).length, 40);
    assert.equal(m.net.ready, undefined);
    addBuffers(m, 60, 1536);
    assert.notEqual(m.net.ready, undefined);
    assert.equal(m.net.waiting.length, 0);
  });

  it("a small queue never holds the largest frame: what fits is received, the rest dropped", () => {
    const m = rig({ features: LARGE, queueSize: 8 });
    addBuffers(m, 4, 1536);
    m.net.arrive(frameOf(1000), frameOf(7000), frameOf(60));
    assert.deepEqual(lengths(m.rxq), [1012]);
    // Three are held, less than half: the driver has to add one first.
    assert.equal(m.net.waiting.length, 2);
    addBuffers(m, 1, 1536);
    assert.deepEqual(lengths(m.rxq), [72]);
    assert.equal(m.device.counters.rxTooLong, 1);
  });

  const bounds: readonly (readonly [number, "rxTooShort" | "rxTooLong" | undefined])[] = [
    [0, "rxTooShort"],
    [13, "rxTooShort"],
    [14, undefined],
    [2036, undefined],
    [2037, "rxTooLong"],
  ];
  for (const [length, counter] of bounds) {
    it(`a frame of ${String(length)} bytes for a buffer of 2048 is ${counter ?? "received"}`, () => {
      const m = rig();
      addBuffers(m, 2, 2048);
      m.net.arrive(frameOf(length), frameOf(50));
      // A dropped frame costs no buffer.
      assert.deepEqual(lengths(m.rxq), counter === undefined ? [HEADER + length, 62] : [62]);
      if (counter !== undefined) assert.equal(m.device.counters[counter], 1);
      assert.equal(m.memory.readU16(RX + 10), 1);
    });
  }

  it("a turn is bounded, and the rest comes in later ones", () => {
    const m = rig();
    addBuffers(m, 256, 2048);
    for (let i = 0; i < 200; i++) m.net.waiting.push(frameOf(60));
    m.net.ready?.();
    assert.equal(lengths(m.rxq).length, 128);
    assert.equal(m.net.ready, undefined);
    m.loop.settle();
    assert.equal(lengths(m.rxq).length, 72);
    assert.notEqual(m.net.ready, undefined);
  });

  it("the limiter delays a frame that has been read, and loses none", () => {
    const m = rig({ rxRateLimiter: { bandwidth: { size: 100, oneTimeBurst: 0, refillTimeMs: 100 } } });
    addBuffers(m, 8, 2048);
    m.net.arrive(frameOf(100, 1), frameOf(100, 2), frameOf(100, 3));
    assert.deepEqual(lengths(m.rxq), [112]);
    assert.equal(m.net.ready, undefined);
    m.driver.notify(0);
    assert.deepEqual(lengths(m.rxq), []);
    m.loop.advance(100);
    assert.deepEqual(lengths(m.rxq), [112]);
    m.loop.advance(100);
    assert.deepEqual(lengths(m.rxq), [112]);
    assert.equal(m.memory.readU8(RX + 2 * 2048 + 12), 3 + 12);
    assert.equal(m.device.counters.rxThrottled, 2);
  });

  it("a backend that fails is left alone for a while", () => {
    const m = rig();
    addBuffers(m, 2, 2048);
    m.net.receiveError = 77;
    m.net.arrive();
    assert.deepEqual(m.log, ["net0: Receiving failed: error 77"]);
    assert.equal(m.net.ready, undefined);
    m.loop.advance(99);
    assert.equal(m.device.counters.rxErrors, 1);
    m.net.receiveError = 0;
    m.net.waiting.push(frameOf(60));
    m.loop.advance(1);
    assert.deepEqual(lengths(m.rxq), [72]);
  });

  it("a buffer without room for a header breaks the device, until reset", () => {
    const m = rig();
    m.rxq.add([{ gpa: RX, length: 11, writable: true }]);
    m.driver.notify(0);
    assert.equal(m.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_CONFIG_S_NEEDS_RESET);
    const [rxq] = m.driver.start({ features: PLAIN });
    assert.ok(rxq !== undefined);
    rxq.add([{ gpa: RX, length: 2048, writable: true }]);
    m.driver.notify(0);
    m.net.arrive(frameOf(60));
    assert.deepEqual(lengths(rxq), [72]);
  });

  it("a reset forgets held buffers: nothing is written to them any more", () => {
    const m = rig();
    addBuffers(m, 4, 2048);
    m.driver.reset();
    assert.equal(m.net.ready, undefined);
    const before = m.memory.bytes.slice();
    m.net.arrive(frameOf(60));
    m.loop.settle();
    assert.deepEqual(m.memory.bytes, before);
  });
});
