// Each kind of device with its driver, over memory that a test brings: one honest request to it, and what the host does.
import assert from "node:assert/strict";
import type { GuestMemory } from "../../../devices/contracts.js";
import { BalloonDevice } from "../../../devices/virtio/balloon/device.js";
import { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "../../../devices/virtio/block/constants.js";
import { BlockDevice } from "../../../devices/virtio/block/device.js";
import { ConsoleDevice } from "../../../devices/virtio/console/device.js";
import { Writer } from "../../../devices/virtio/cursor.js";
import type { VirtioDevice } from "../../../devices/virtio/device.js";
import { NetDevice } from "../../../devices/virtio/net/device.js";
import { RngDevice } from "../../../devices/virtio/rng/device.js";
import { Segments } from "../../../devices/virtio/segments.js";
import { VIRTIO_VSOCK_OP_REQUEST } from "../../../devices/virtio/vsock/constants.js";
import { VsockDevice } from "../../../devices/virtio/vsock/device.js";
import { VsockHeader } from "../../../devices/virtio/vsock/header.js";
import type { DriverBuffer, DriverQueue } from "../../helpers/driver-queue.js";
import type { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeStreams } from "../../helpers/fake-streams.js";
import { MemoryDisk } from "../../helpers/memory-disk.js";
import { frameOf, MemoryNet } from "../../helpers/memory-net.js";
import { virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

export const DEVICE_KINDS = ["block", "net", "rng", "console", "vsock", "balloon"] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

export interface ChangingSubject {
  readonly machine: VirtioMachine<GuestMemory>;
  /** Starts the driver anew and has it ask for what the device is there for; `serve` runs the device's part. Asserts that it was done. */
  request(serve: (action: () => void) => void): void;
  /** The host does something. */
  stir(): void;
}

const CID = 3;
const NO_REPORT = (): void => undefined;

export function makeSubject(kind: DeviceKind, memory: GuestMemory, loop: FakeLoop): ChangingSubject {
  const disk = new MemoryDisk(memory, 64 * 512);
  const net = new MemoryNet(memory);
  const streams = new FakeStreams();
  let hostOutput = 0;
  const host = {
    transmit: (bytes: Uint8Array): boolean => {
      hostOutput += bytes.length;
      return true;
    },
    roomAvailable: NO_REPORT,
  };
  let released = 0;
  const pages = {
    release: (_gpa: number, length: number): number => {
      released += length;
      return 0;
    },
    explain: String,
  };
  const console = new ConsoleDevice({ name: "console0", host });
  const balloon = new BalloonDevice({
    ...{ name: "balloon0", pages, pageReporting: true, onStatistics: NO_REPORT, loop, report: NO_REPORT },
  });
  const devices: Readonly<Record<DeviceKind, () => VirtioDevice>> = {
    block: () =>
      new BlockDevice({
        ...{ name: "block0", backend: disk, id: "", blockSize: 512, cache: "unsafe", loop, report: NO_REPORT },
      }),
    net: () =>
      new NetDevice({ name: "net0", backend: net, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), loop, report: NO_REPORT }),
    rng: () => new RngDevice({ name: "rng0", source: { fill: (bytes) => void bytes.fill(1) }, loop }),
    console: () => console,
    vsock: () => new VsockDevice({ name: "vsock0", backend: streams, guestCid: CID, loop }),
    balloon: () => balloon,
  };
  const machine = virtioMachine(devices[kind](), loop, memory, 0x1000);
  const { driver } = machine;

  /** Bytes for the device to read, or room for it. */
  const buffer = (length: number, writable = false): DriverBuffer => {
    const gpa = driver.allocate(length);
    memory.slice(gpa, length).fill(0);
    return { gpa, length, writable };
  };
  const queueOf = (queues: readonly DriverQueue[], index: number): DriverQueue => {
    const queue = queues[index];
    assert.ok(queue !== undefined, `no queue ${String(index)}`);
    return queue;
  };
  const requests: Readonly<Record<DeviceKind, (serve: (action: () => void) => void, queues: DriverQueue[]) => void>> = {
    block: (serve, queues) => {
      const queue = queueOf(queues, 0);
      for (const type of [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN]) {
        const header = buffer(16);
        memory.writeU32(header.gpa, type);
        memory.writeU64(header.gpa + 8, 3n);
        queue.add([header, buffer(1024, type === VIRTIO_BLK_T_IN), buffer(1, true)]);
      }
      serve(() => driver.notify(0));
      loop.settle();
      assert.deepEqual(
        queue.collect().map(({ length }) => length),
        [1, 1025],
      );
    },
    net: (serve, queues) => {
      const before = net.sent.length;
      queueOf(queues, 1).add([buffer(12), buffer(60)]);
      queueOf(queues, 0).add([buffer(1600, true)]);
      serve(() => {
        driver.notify(1);
        driver.notify(0);
        net.arrive(frameOf(60));
        loop.settle();
      });
      assert.equal(net.sent.length, before + 1);
      assert.equal(queueOf(queues, 0).collect()[0]?.length, 72);
    },
    rng: (serve, queues) => {
      queueOf(queues, 0).add([buffer(64, true)]);
      serve(() => driver.notify(0));
      loop.settle();
      assert.equal(queueOf(queues, 0).collect()[0]?.length, 64);
    },
    console: (serve, queues) => {
      const before = hostOutput;
      queueOf(queues, 1).add([buffer(10), buffer(20)]);
      queueOf(queues, 0).add([buffer(64, true)]);
      serve(() => {
        driver.notify(1);
        driver.notify(0);
        console.receive(new Uint8Array(5));
        loop.settle();
      });
      assert.equal(hostOutput, before + 30);
      assert.equal(queueOf(queues, 0).collect().length, 1);
    },
    vsock: (serve, queues) => {
      const packet = buffer(44);
      const segments = new Segments(1);
      segments.append(packet.gpa, 44);
      const writer = new Writer(memory);
      writer.start(segments);
      const ports = { sourceCid: CID, destinationCid: 2, sourcePort: 9, destinationPort: 9 };
      Object.assign(new VsockHeader(), { ...ports, type: 1, operation: VIRTIO_VSOCK_OP_REQUEST }).write(writer);
      queueOf(queues, 0).add([buffer(64, true)]);
      queueOf(queues, 1).add([packet]);
      const before = streams.asked.length;
      serve(() => {
        driver.notify(1);
        streams.asked.at(-1)?.events.connected();
        loop.settle();
      });
      assert.equal(streams.asked.length, before + 1);
      assert.equal(queueOf(queues, 0).collect()[0]?.length, 44);
    },
    balloon: (serve, queues) => {
      const numbers = buffer(8);
      memory.writeU32(numbers.gpa, 7);
      memory.writeU32(numbers.gpa + 4, 9);
      const before = released;
      queueOf(queues, 0).add([numbers]);
      serve(() => driver.notify(0));
      loop.settle();
      assert.equal(released, before + 2 * 4096);
    },
  };

  return {
    machine,
    request: (serve) => {
      requests[kind](serve, driver.start({ queueSize: 8 }));
    },
    stir: () => {
      if (kind === "net") net.arrive(frameOf(60), frameOf(1500));
      if (kind === "console") {
        console.receive(new Uint8Array(20));
        console.outputReady();
      }
      if (kind === "vsock") {
        const stream = streams.open(5);
        stream?.events?.data(new Uint8Array(100));
        if (stream?.isDestroyed === false) stream.events?.closed(false);
      }
      if (kind === "balloon") void balloon.requestStatistics();
      net.sent.length = 0;
      disk.log.length = 0;
    },
  };
}
