// The network device alone: a driver in this process writes the rings, no guest runs. Rows "device"
// end in a backend that only counts; rows "tap" in a TAP interface, where this host allows one.
//   node build/bench/micro/net.bench.js [--rounds N]
// The last line of standard output is JSON: median and spread of every row, `bytes` of heap a frame.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../devices/virtio/constants.js";
import { MmioTransport, VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import type { NetBackend } from "../../devices/virtio/net/backend.js";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
} from "../../devices/virtio/net/constants.js";
import { NetDevice } from "../../devices/virtio/net/device.js";
import type { Segments } from "../../devices/virtio/segments.js";
import type { DriverQueue } from "../../test/helpers/driver-queue.js";
import { tapProblem } from "../../test/helpers/tap-guard.js";
import { VirtioDriver } from "../../test/helpers/virtio-driver.js";
import { openTap } from "../../vmm/virtio/backends/tap-interface.js";
import { TapBackend } from "../../vmm/virtio/backends/tap.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { KIB, MIB } from "../../vmm/memory/layout.js";
import { measure } from "./measure.js";

/** Frames that are made available before a notification, or arrive at once. */
const DEPTH = 64;
const HEAP_CHUNK = 10_048;
const HEADER = 12;
/** Buffers of a Linux driver for frames of 1500 bytes. */
const BUFFER = 1536;
const HOST = { address: "192.0.2.1", prefixLength: 24 };
const BASIC = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_NET_F_MRG_RXBUF];
const LARGE = [...BASIC, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4];

/** Takes every frame; gives as many as it is told to, without writing them anywhere. */
class CountingBackend implements NetBackend {
  readonly canOffload = true;
  /** Frames that are there to be received, and the `bytes` of each. */
  waiting = 0;
  frameLength = 0;

  setGuestOffloads(): number {
    return 0;
  }
  send(frame: Segments): number {
    return frame.byteLength;
  }
  receive(): number {
    if (this.waiting === 0) return 0;
    this.waiting--;
    return this.frameLength;
  }
  watch(): void {
    // The bench calls the device itself.
  }
  unwatch(): void {
    // As above.
  }
  explain(error: number): string {
    return String(error);
  }
}

interface Machine {
  readonly memory: MappedGuestMemory;
  readonly driver: VirtioDriver;
  readonly transport: MmioTransport;
  readonly device: NetDevice;
}

const memory = MappedGuestMemory.map(64 * MIB);
/** Turns that the device has asked for. */
const deferred: (() => void)[] = [];

function runDeferred(): void {
  for (let task = deferred.pop(); task !== undefined; task = deferred.pop()) task();
}

function machine(backend: NetBackend): Machine {
  const loop = {
    now: () => performance.now(),
    defer: (task: () => void) => deferred.push(task),
    after: () => () => undefined,
  };
  const report = (line: string): void => console.error(line);
  const device = new NetDevice({ name: "net0", backend, mac: Uint8Array.of(2, 0, 0, 0, 0, 7), loop, report });
  const interrupt = { trigger: () => undefined };
  const registers = new Int32Array(VIRTIO_MMIO_REGISTER_WORDS);
  const transport = new MmioTransport({ device, memory, interrupt, registers, loop, report });
  return { memory, driver: new VirtioDriver(transport, memory, MIB), transport, device };
}

/** A function that sends `count` frames of `length` bytes, written by `fill`. */
function sender(
  { driver, transport, device }: Machine,
  length: number,
  fill: (frame: Uint8Array) => void,
): (count: number) => void {
  const [, txq] = driver.start({ features: LARGE });
  if (txq === undefined) throw new Error("The device has no queue");
  const depth = Math.min(DEPTH, Math.floor(txq.size / (1 + Math.ceil(length / (4 * KIB)))));
  const heads = Array.from({ length: depth }, () => {
    const gpa = driver.allocate(HEADER + length, 4 * KIB);
    fill(memory.slice(gpa, HEADER + length));
    const pieces = [{ gpa, length: HEADER }];
    for (let offset = 0; offset < length; offset += 4 * KIB) {
      pieces.push({ gpa: gpa + HEADER + offset, length: Math.min(4 * KIB, length - offset) });
    }
    return txq.write(pieces);
  });
  return (count) => {
    const before = device.counters.txFrames;
    for (let left = count; left > 0; left -= depth) {
      for (let slot = 0; slot < depth; slot++) txq.publish(heads[slot] ?? 0);
      if (txq.wantsNotification()) transport.notify(1);
      runDeferred();
      for (let slot = 0; slot < depth; slot++) if (!txq.takeUsed()) throw new Error("A frame was not sent");
      txq.wantInterrupt(depth - 1);
    }
    if (device.counters.txFrames - before < count) throw new Error("Frames were dropped");
  };
}

/** The driver's side of receiving: buffers go back as soon as they have been looked at. */
class Refill {
  readonly #queue: DriverQueue;
  readonly #transport: MmioTransport;

  constructor(queue: DriverQueue, { driver, transport }: Machine, length: number) {
    this.#queue = queue;
    this.#transport = transport;
    for (let count = 0; count < queue.size; count++) {
      queue.add([{ gpa: driver.allocate(length, 64), length, writable: true }]);
    }
    transport.notify(0);
  }

  /** Takes the used buffers and makes them available again; how many there were. */
  run(): number {
    const queue = this.#queue;
    let count = 0;
    for (; queue.takeUsed(); count++) queue.publish(queue.usedId);
    queue.wantInterrupt(0);
    if (queue.wantsNotification()) this.#transport.notify(0);
    return count;
  }
}

/** A function that receives `count` frames of `length` bytes from the counting backend. */
function receiver(
  rig: Machine,
  backend: CountingBackend,
  length: number,
  features: readonly number[],
): (count: number) => void {
  const [rxq] = rig.driver.start({ features });
  if (rxq === undefined) throw new Error("The device has no queue");
  const refill = new Refill(rxq, rig, BUFFER);
  const buffersOfFrame = Math.ceil((HEADER + length) / BUFFER);
  const depth = Math.min(DEPTH, Math.floor(128 / buffersOfFrame));
  backend.frameLength = HEADER + length;
  return (count) => {
    const before = rig.device.counters.rxFrames;
    for (let left = count; left > 0; left -= depth) {
      backend.waiting = depth;
      // As readiness of the backend does it.
      rig.device.onAvailable(0);
      runDeferred();
      refill.run();
    }
    if (rig.device.counters.rxFrames - before < count) throw new Error("Frames were lost");
  };
}

interface Result {
  readonly frames_per_s: number;
  readonly gbit_per_s: number;
  readonly frames_per_s_min: number;
  readonly frames_per_s_max: number;
  readonly heap_bytes_per_frame?: number;
}

const { values } = parseArgs({ options: { rounds: { type: "string", default: "11" } } });
const rounds = Number(values.rounds);
const results: Record<string, Result> = {};

function record(name: string, length: number, result: Omit<Result, "gbit_per_s">): void {
  const gbit = Number(((result.frames_per_s * length * 8) / 1e9).toFixed(2));
  results[name] = { ...result, gbit_per_s: gbit };
  console.error(`${name}: ${String(result.frames_per_s)} frames/s, ${String(gbit)} Gbit/s`);
}

function measureRow(name: string, length: number, run: (count: number) => void): void {
  const rates = measure(run, { rounds, batch: DEPTH * 32, heapChunk: HEAP_CHUNK });
  record(name, length, {
    frames_per_s: Math.round(rates.median),
    frames_per_s_min: Math.round(rates.min),
    frames_per_s_max: Math.round(rates.max),
    heap_bytes_per_frame: Number(rates.heapBytes.toFixed(2)),
  });
}

/** An Ethernet frame of an unassigned type: the host looks at it and drops it. */
function fillUnknown(frame: Uint8Array): void {
  frame.fill(0);
  frame.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 0x88, 0xb5], HEADER);
}

/** Host to guest: the interface's queue is filled outside of what is measured, then emptied. */
async function measureTapReceive(rig: Machine, tap: string): Promise<void> {
  const length = 1514;
  const [rxq] = rig.driver.start({ features: BASIC });
  if (rxq === undefined) throw new Error("The device has no queue");
  const refill = new Refill(rxq, rig, BUFFER);
  const socket = createSocket("udp4");
  socket.bind(0, HOST.address);
  await once(socket, "listening");
  // Multicast needs no neighbour that would answer.
  socket.setMulticastInterface(HOST.address);
  const payload = new Uint8Array(length - 42);
  const rates: number[] = [];
  for (let round = 0; round < 10 * rounds; round++) {
    const sends = Array.from({ length: 400 }, () => new Promise((done) => socket.send(payload, 9, "239.1.2.3", done)));
    await Promise.all(sends);
    const before = rig.device.counters.rxFrames;
    const start = performance.now();
    do {
      rig.device.onAvailable(0);
      runDeferred();
    } while (refill.run() > 0);
    const frames = rig.device.counters.rxFrames - before;
    if (frames < 200) continue;
    rates.push((frames * 1000) / (performance.now() - start));
  }
  socket.close();
  if (rates.length < rounds) throw new Error(`No frames arrive at ${tap}`);
  rates.sort((a, b) => a - b);
  record("net_tap_rx_1514", length, {
    frames_per_s: Math.round(rates[rates.length >> 1] ?? NaN),
    frames_per_s_min: Math.round(rates[0] ?? NaN),
    frames_per_s_max: Math.round(rates.at(-1) ?? NaN),
  });
}

const counting = new CountingBackend();
const alone = machine(counting);
measureRow("net_device_tx_60", 60, sender(alone, 60, fillUnknown));
measureRow("net_device_tx_1514", 1514, sender(alone, 1514, fillUnknown));
measureRow("net_device_tx_64k", 65_000, sender(alone, 65_000, fillUnknown));
measureRow("net_device_rx_1514", 1514, receiver(alone, counting, 1514, BASIC));
measureRow("net_device_rx_1514_tso", 1514, receiver(alone, counting, 1514, LARGE));
measureRow("net_device_rx_64k", 65_000, receiver(alone, counting, 65_000, LARGE));

const problem = tapProblem();
if (problem === undefined) {
  const tap = new TapBackend(openTap({ name: "auto", hostAddress: HOST }), memory, () => undefined);
  const rig = machine(tap);
  measureRow("net_tap_tx_1514", 1514, sender(rig, 1514, fillUnknown));
  await measureTapReceive(rig, tap.name);
  tap.close();
} else {
  console.error(`No rows with a TAP interface: ${problem}`);
}
console.log(JSON.stringify({ bench: "net", node: process.version, rounds, results }));
