// A socket device whose host programs a test plays, and packets to and from it as a driver sees them.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX } from "../../devices/virtio/constants.js";
import { Reader, Writer } from "../../devices/virtio/cursor.js";
import { Segments } from "../../devices/virtio/segments.js";
import {
  VIRTIO_VSOCK_OP_REQUEST as REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE as RESPONSE,
} from "../../devices/virtio/vsock/constants.js";
import { VsockDevice, type VsockDeviceOptions } from "../../devices/virtio/vsock/device.js";
import { VsockHeader } from "../../devices/virtio/vsock/header.js";
import type { DriverQueue } from "./driver-queue.js";
import { FakeLoop } from "./fake-loop.js";
import { FakeMemory } from "./fake-memory.js";
import { FakeStreams, type FakeStream } from "./fake-streams.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "./virtio-machine.js";

export const CID = 3;
export const HOST_PORT = 52;
export const GUEST_PORT = 1000;
export const TX = 0x20_0000;
export const RX = 0x30_0000;
export const RX_LENGTH = 4096;

export interface Packet {
  readonly op: number;
  readonly hostPort: number;
  readonly guestPort: number;
  readonly flags: number;
  readonly bufferSize: number;
  readonly forwarded: number;
  readonly type: number;
  readonly data: number[];
}

export interface Rig extends VirtioMachine {
  readonly device: VsockDevice;
  readonly streams: FakeStreams;
  rxq: DriverQueue;
  txq: DriverQueue;
}

export function connectDriver(m: VirtioMachine): { rxq: DriverQueue; txq: DriverQueue } {
  const [rxq, txq] = m.driver.start({ features: [VIRTIO_RING_F_EVENT_IDX] });
  assert.ok(rxq !== undefined && txq !== undefined);
  return { rxq, txq };
}

export function rig(options: Partial<VsockDeviceOptions> & { buffers?: number } = {}): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const streams = new FakeStreams();
  const device = new VsockDevice({ name: "vsock0", backend: streams, guestCid: CID, loop, ...options });
  const machine = virtioMachine(device, loop, memory);
  const m = Object.assign(machine, { device, streams, ...connectDriver(machine) });
  addBuffers(m, options.buffers ?? 32);
  return m;
}

export function addBuffers(m: Rig, count: number): void {
  for (let i = 0; i < count; i++) m.rxq.add([{ gpa: RX + i * RX_LENGTH, length: RX_LENGTH, writable: true }]);
  m.driver.notify(0);
}

/** A header of the guest's at `gpa`, of an empty packet on the usual ports unless told otherwise. */
export function writeHeader(m: Rig, gpa: number, op: number, header: Partial<VsockHeader>): void {
  const segments = new Segments(1);
  segments.append(gpa, 44);
  const writer = new Writer(m.memory);
  writer.start(segments);
  const full = Object.assign(new VsockHeader(), {
    sourceCid: CID,
    destinationCid: 2,
    sourcePort: GUEST_PORT,
    destinationPort: HOST_PORT,
    type: 1,
    bufferSize: 65536,
    operation: op,
    ...header,
  });
  full.write(writer);
}

/** A packet of the guest, only made available. */
export function put(m: Rig, op: number, header: Partial<VsockHeader> = {}, data: ArrayLike<number> = []): void {
  writeHeader(m, TX, op, { length: data.length, ...header });
  m.memory.slice(TX + 44, data.length).set(data);
  m.txq.add([{ gpa: TX, length: 44 + data.length }]);
}

export function send(m: Rig, op: number, header: Partial<VsockHeader> = {}, data: ArrayLike<number> = []): void {
  put(m, op, header, data);
  m.driver.notify(1);
  m.txq.collect();
}

/** What the device has sent to the guest; the buffers go back. */
export function received(m: Rig, refill = true): Packet[] {
  const packets: Packet[] = [];
  const reader = new Reader(m.memory);
  while (m.rxq.takeUsed()) {
    const gpa = Number(m.memory.readU64(m.rxq.descriptorGpa + 16 * m.rxq.usedId));
    const segments = new Segments(1);
    segments.append(gpa, RX_LENGTH);
    reader.start(segments);
    const header = new VsockHeader();
    header.read(reader);
    assert.equal(header.sourceCid, 2);
    assert.equal(header.destinationCid, CID);
    assert.equal(m.rxq.usedLength, 44 + header.length);
    const data = [...m.memory.slice(gpa + 44, header.length)];
    packets.push({
      op: header.operation,
      hostPort: header.sourcePort,
      guestPort: header.destinationPort,
      flags: header.flags,
      bufferSize: header.bufferSize,
      forwarded: header.forwarded,
      type: header.type,
      data,
    });
    if (refill) m.rxq.publish(m.rxq.usedId);
  }
  if (refill) m.driver.notify(0);
  return packets;
}

export function ops(m: Rig): number[] {
  return received(m).map(({ op }) => op);
}

/** A connection that the guest has begun, open on both sides. */
export function openFromGuest(m: Rig, header: Partial<VsockHeader> = {}): FakeStream {
  send(m, REQUEST, header);
  const asked = m.streams.asked.at(-1);
  assert.ok(asked !== undefined);
  asked.events.connected();
  assert.deepEqual(ops(m), [RESPONSE]);
  return asked.stream;
}
