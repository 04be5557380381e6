// A block device over a disk in an array, and requests to it as a driver makes them.
import assert from "node:assert/strict";
import {
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from "../../devices/virtio/block/constants.js";
import { BlockDevice, type BlockDeviceOptions } from "../../devices/virtio/block/device.js";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../devices/virtio/constants.js";
import type { DriverBuffer, DriverQueue } from "./driver-queue.js";
import { FakeLoop } from "./fake-loop.js";
import { FakeMemory } from "./fake-memory.js";
import { MemoryDisk } from "./memory-disk.js";
import { MACHINE_MEMORY_SIZE, virtioMachine, type VirtioMachine } from "./virtio-machine.js";

export const FEATURES = [
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
];
export const SECTORS = 64;
export const HEADER = 0x20_0000;
export const DATA = 0x20_1000;
export const STATUS = 0x2f_0000;
/** What no device writes as a status. */
export const UNTOUCHED = 0xaa;

export interface Rig extends VirtioMachine {
  readonly disk: MemoryDisk;
  readonly device: BlockDevice;
  readonly queue: DriverQueue;
}

export function rig(
  options: Partial<BlockDeviceOptions> & { isReadonly?: boolean; sectors?: number; features?: readonly number[] } = {},
): Rig {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const disk = new MemoryDisk(memory, (options.sectors ?? SECTORS) * 512, options.isReadonly);
  const log: string[] = [];
  const device = new BlockDevice({
    name: "block0",
    backend: disk,
    id: "a disk",
    blockSize: 512,
    cache: "writeback",
    loop,
    report: (line) => log.push(line),
    ...options,
  });
  const machine = virtioMachine(device, loop, memory);
  const [queue] = machine.driver.start({ features: options.features ?? FEATURES });
  assert.ok(queue !== undefined);
  return Object.assign(machine, { disk, device, queue, log });
}

export function writeHeader({ memory }: Rig, type: number, sector: number, at = HEADER): void {
  memory.writeU32(at, type);
  memory.writeU32(at + 4, 0);
  memory.writeU64(at + 8, BigInt(sector));
}

export function readable(length: number, gpa = DATA): DriverBuffer {
  return { gpa, length };
}

export function writable(length: number, gpa = DATA): DriverBuffer {
  return { gpa, length, writable: true };
}

export interface Answer {
  readonly status: number;
  readonly used: number | undefined;
}

/** One request: header, `data`, status byte. */
export function request(m: Rig, type: number, sector: number, ...data: readonly DriverBuffer[]): Answer {
  writeHeader(m, type, sector);
  m.memory.writeU8(STATUS, UNTOUCHED);
  const head = m.queue.add([readable(16, HEADER), ...data, writable(1, STATUS)]);
  m.driver.notify(0);
  m.loop.settle();
  const [used] = m.queue.collect();
  if (used !== undefined) assert.equal(used.id, head);
  return { status: m.memory.readU8(STATUS), used: used?.length };
}

export function writeRanges(
  m: Rig,
  ranges: readonly (readonly [sector: number, sectors: number, flags: number])[],
): DriverBuffer {
  ranges.forEach(([sector, sectors, flags], index) => {
    m.memory.writeU64(DATA + 16 * index, BigInt(sector));
    m.memory.writeU32(DATA + 16 * index + 8, sectors);
    m.memory.writeU32(DATA + 16 * index + 12, flags);
  });
  return readable(16 * ranges.length);
}
