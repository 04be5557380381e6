// The block device under requests that are nearly right, while the guest changes them, the host
// fails or has them wait, the limiter stops the queue and the driver resets in the middle.
import assert from "node:assert/strict";
import {
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_IN,
} from "../../../devices/virtio/block/constants.js";
import { BlockDevice } from "../../../devices/virtio/block/device.js";
import { MAX_SLOW_REQUESTS } from "../../../devices/virtio/block/slow-requests.js";
import {
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "../../../devices/virtio/constants.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import type { DriverBuffer, DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { MemoryDisk } from "../../helpers/memory-disk.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations, troubles } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x1_0000;
const SECTORS = 16;
/** A turn: 264 requests of a queue of 16, each with a walk, a header, ranges and a status. */
const LIMITS = { count: 60, maxAccesses: 264 * 200 };
const FEATURES = [
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
];

/** A disk that checks what it is asked for, and fails now and then. */
class CheckedDisk extends MemoryDisk {
  readonly #random: Random;
  failOneIn = 0;

  constructor(memory: HostileMemory, random: Random, isReadonly: boolean) {
    super(memory, SECTORS * 512, isReadonly);
    this.#random = random;
  }

  override read(position: number, data: Segments): number {
    this.#check(position, data.byteLength);
    return super.read(position, data);
  }
  override write(position: number, data: Segments): number {
    this.#checkWrite(position, data.byteLength);
    return super.write(position, data);
  }
  override readLater(position: number, length: number, done: (error: number, bytes: Uint8Array) => void): void {
    this.#check(position, length);
    super.readLater(position, length, done);
  }
  override writeLater(position: number, bytes: Uint8Array, done: (error: number) => void): void {
    this.#checkWrite(position, bytes.length);
    super.writeLater(position, bytes, done);
  }
  override discard(position: number, length: number): number {
    this.#checkWrite(position, length);
    return super.discard(position, length);
  }
  override discardLater(position: number, length: number, done: (error: number) => void): void {
    this.#checkWrite(position, length);
    super.discardLater(position, length, done);
  }
  override writeZeroesLater(position: number, length: number, mayUnmap: boolean, done: (error: number) => void): void {
    this.#checkWrite(position, length);
    super.writeZeroesLater(position, length, mayUnmap, done);
  }
  override writeZeroes(position: number, length: number, mayUnmap: boolean): number {
    this.#checkWrite(position, length);
    return super.writeZeroes(position, length, mayUnmap);
  }

  #checkWrite(position: number, length: number): void {
    assert.ok(!this.isReadonly, "a read-only disk is written to");
    this.#check(position, length);
  }

  #check(position: number, length: number): void {
    assert.ok(position % 512 === 0 && length % 512 === 0 && length > 0, `${String(position)}+${String(length)}`);
    assert.ok(position >= 0 && position + length <= this.size, `${String(position)}+${String(length)}`);
    this.error = this.failOneIn !== 0 && this.#random.oneIn(this.failOneIn) ? 5 : 0;
  }
}

/** Header, data and status, cut at random; values mostly right. */
export function publishRequest(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  memory.asGuest(() => {
    const header = memory.at(16 * random.below(RAM / 16 - 1), 16);
    const type = random.oneIn(6) ? random.value() : random.pick([0, 1, 4, 8, 11, 13]);
    memory.writeU32(header, type);
    memory.writeU64(header + 8, random.oneIn(6) ? BigInt(random.value()) << 32n : BigInt(random.below(SECTORS + 2)));
    const isWritable = random.oneIn(6) ? random.oneIn(2) : type === 0 || type === 8;
    const pieces = random.pick([0, 1, 1, 2, 4]);
    const buffers: DriverBuffer[] = [{ gpa: header, length: random.oneIn(10) ? random.below(17) : 16 }];
    for (let piece = 0; piece < pieces; piece++) {
      const length = random.pick([16, 20, 32, 256, 512, 512, 1024, random.below(5000)]);
      buffers.push({ gpa: memory.at(random.below(RAM - length), length), length, writable: isWritable });
    }
    if (!random.oneIn(10)) buffers.push({ gpa: memory.at(random.below(RAM)), length: 1, writable: true });
    const start = random.below(queue.size);
    buffers.forEach(({ gpa, length, writable }, position) => {
      const isLast = position + 1 === buffers.length;
      const next = (start + position + 1) % queue.size;
      queue.writeDescriptor((start + position) % queue.size, {
        gpa,
        length,
        flags: (isLast ? 0 : VIRTQ_DESC_F_NEXT) | (writable === true ? VIRTQ_DESC_F_WRITE : 0),
        next,
      });
    });
    queue.publish(start);
  });
}

export const blockTarget: FuzzTarget = { name: "block", run: (random, layout) => runBlock(random, layout, false) };
/** A fuzzer of its own, because the seeds of the other mean the same cases only while it stays as it is. */
export const slowBlockTarget: FuzzTarget = {
  name: "block-slow",
  run: (random, layout) => runBlock(random, layout, true),
};

function runBlock(random: Random, layout: RamLayout, isSlow: boolean): void {
  const memory = new HostileMemory(RAM, random, layout);
  const loop = new FakeLoop();
  const disk = new CheckedDisk(memory, random, random.oneIn(4));
  const limit = { size: random.pick([0, 1, 2000]), oneTimeBurst: random.below(3), refillTimeMs: random.below(20) };
  const device = new BlockDevice({
    name: "block0",
    backend: disk,
    id: "fuzz",
    blockSize: random.pick([512, 4096]),
    cache: random.pick(["writeback", "unsafe"]),
    rateLimiter: random.oneIn(2) ? { bandwidth: limit, operations: limit } : undefined,
    loop,
    report: () => undefined,
  });
  const { driver, transport } = virtioMachine(device, loop, memory, memory.heapGpa);
  const queueSize = 2 ** (1 + random.below(4));
  const start = (): DriverQueue => {
    const [queue] = driver.start({ features: FEATURES.filter(() => random.oneIn(2)), queueSize });
    assert.ok(queue !== undefined, "no queue after reset");
    return queue;
  };
  let queue = start();
  memory.changeOneIn = random.pick([0, 0, 5, 50]);
  disk.failOneIn = random.pick([0, 3]);
  disk.isSlow = isSlow;

  const operations: readonly (() => void)[] = [
    () => publishRequest(random, memory, queue),
    () => publishRequest(random, memory, queue),
    () => transport.notify(0),
    () => transport.notify(0),
    () => loop.advance(random.below(30)),
    () => void loop.turn(),
    () => publishChain(random, memory, queue),
    ...troubles(
      random,
      memory,
      driver,
      { disturb: 3, restart: 3, reset: 5 },
      {
        queue: () => queue,
        restart: () => (queue = start()),
      },
    ),
  ];
  const slow: readonly (() => void)[] = [
    () => void disk.finishOne(),
    () => void disk.finishOne(),
    () => {
      if (random.oneIn(5)) disk.isSlow = !disk.isSlow;
    },
  ];
  runOperations(random, memory, isSlow ? [...operations, ...slow] : operations, LIMITS, () => {
    assert.ok(disk.later.length <= MAX_SLOW_REQUESTS, `${String(disk.later.length)} requests wait`);
  });

  memory.changeOneIn = 0;
  disk.failOneIn = 0;
  disk.error = 0;
  disk.isSlow = false;
  loop.advance(1e6);
  queue = start();
  const header = driver.allocate(16);
  const data = driver.allocate(513);
  memory.writeU32(header, VIRTIO_BLK_T_IN);
  memory.writeU64(header + 8, 3n);
  // Two descriptors, because that is all that the smallest queue has.
  queue.add([
    { gpa: header, length: 16 },
    { gpa: data, length: 513, writable: true },
  ]);
  driver.notify(0);
  for (let turns = 0; turns < 10; turns++) {
    loop.advance(1e6);
    loop.turn();
    // What earlier drivers have left may hold the queue; none of it reaches this one.
    while (disk.finishOne()) loop.turn();
  }
  assert.equal(queue.collect()[0]?.length, 513, "does not work after reset");
  assert.equal(memory.readU8(data + 512), VIRTIO_BLK_S_OK);
  assert.deepEqual(memory.slice(data, 512), disk.bytes.subarray(3 * 512, 4 * 512));
}
