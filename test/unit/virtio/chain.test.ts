// Needs: nothing.
import assert from "node:assert/strict";
import type { DescriptorChain } from "../../../devices/virtio/chain.js";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../../devices/virtio/constants.js";
import { Reader, Writer } from "../../../devices/virtio/cursor.js";
import { QueueError } from "../../../devices/virtio/queue-error.js";
import { Queue } from "../../../devices/virtio/queue.js";
import { Segments } from "../../../devices/virtio/segments.js";
import { DriverQueue, type Descriptor } from "../../helpers/driver-queue.js";
import { FakeMemory } from "../../helpers/fake-memory.js";

const NEXT = VIRTQ_DESC_F_NEXT;
const WRITE = VIRTQ_DESC_F_WRITE;
const INDIRECT = VIRTQ_DESC_F_INDIRECT;
const SIZE = 4;
const RAM = 0x10000;
const TABLE = 0x4000;

function pair(indirect = true): { memory: FakeMemory; driver: DriverQueue; queue: Queue } {
  const memory = new FakeMemory(RAM);
  const driver = new DriverQueue(memory, 0x100, SIZE, false);
  return { memory, driver, queue: new Queue(memory, driver, { eventIndex: false, indirect }) };
}

function ranges({ gpas, lengths, count }: Segments): [gpa: number | undefined, length: number | undefined][] {
  return Array.from({ length: count }, (_, index) => [gpas[index], lengths[index]]);
}

function popped(queue: Queue): DescriptorChain {
  const chain = queue.pop();
  assert.ok(chain !== null);
  return chain;
}

/** Descriptors in the table, and in an indirect one at TABLE. */
type Tables = readonly [direct: readonly Descriptor[], indirect?: readonly Descriptor[]];

function d(gpa: number, length: number, flags = 0, next = 0): Descriptor {
  return { gpa, length, flags, next };
}

function write(driver: DriverQueue, [direct, indirect = []]: Tables): void {
  for (const [index, descriptor] of direct.entries()) driver.writeDescriptor(index, descriptor);
  for (const [index, descriptor] of indirect.entries()) driver.writeDescriptor(index, descriptor, TABLE);
  driver.publish(0);
}

describe("chain", () => {
  it("readable buffers first, then writable ones, in order", () => {
    const { driver, queue } = pair();
    driver.add([
      { gpa: 0x8000, length: 16 },
      { gpa: 0x9000, length: 100 },
      { gpa: 0xa000, length: 512, writable: true },
      { gpa: 0xb000, length: 1, writable: true },
    ]);
    const { readable, writable } = popped(queue);
    assert.deepEqual(ranges(readable), [
      [0x8000, 16],
      [0x9000, 100],
    ]);
    assert.deepEqual(ranges(writable), [
      [0xa000, 512],
      [0xb000, 1],
    ]);
    assert.equal(readable.byteLength, 116);
    assert.equal(writable.byteLength, 513);
  });

  it("an indirect table means the same as the direct chain, and nothing is left of the chain before", () => {
    const { driver, queue } = pair();
    driver.add([{ gpa: 0x8000, length: 1 }]);
    popped(queue);
    const head = driver.addIndirect(TABLE, [
      { gpa: 0xa000, length: 8 },
      { gpa: 0xb000, length: 9, writable: true },
    ]);
    const chain = popped(queue);
    assert.equal(chain.head, head);
    assert.deepEqual(ranges(chain.readable), [[0xa000, 8]]);
    assert.deepEqual(ranges(chain.writable), [[0xb000, 9]]);
  });

  it("normal descriptors may come before one indirect table, whose own write flag means nothing", () => {
    const { driver, queue } = pair();
    write(driver, [[d(0x8000, 4, NEXT, 1), d(TABLE, 16, INDIRECT | WRITE)], [d(0x9000, 5)]]);
    const { readable, writable } = popped(queue);
    assert.deepEqual(ranges(readable), [
      [0x8000, 4],
      [0x9000, 5],
    ]);
    assert.equal(writable.count, 0);
  });

  it("an empty buffer is no segment, wherever it points", () => {
    const { driver, queue } = pair();
    write(driver, [[d(2 ** 60, 0, NEXT, 1), d(0x8000, 4)]]);
    assert.deepEqual(ranges(popped(queue).readable), [[0x8000, 4]]);
  });

  it("a chain of as many buffers as the queue has descriptors is the longest", () => {
    const { driver, queue } = pair();
    driver.addIndirect(
      TABLE,
      Array.from({ length: SIZE }, () => ({ gpa: 0x8000, length: 1 })),
    );
    assert.equal(popped(queue).readable.count, SIZE);
  });

  const broken: Readonly<Record<string, Tables>> = {
    "a loop": [[d(0x8000, 1, NEXT, 1), d(0x8000, 1, NEXT, 0)]],
    "a loop of empty buffers": [[d(0, 0, NEXT, 0)]],
    "a loop in an indirect table": [[d(TABLE, 32, INDIRECT)], [d(0x8000, 1, NEXT, 1), d(0x8000, 1, NEXT, 0)]],
    "an indirect chain longer than the queue": [
      [d(TABLE, 80, INDIRECT)],
      [1, 2, 3, 4, 0].map((next) => d(0x8000, 1, next === 0 ? 0 : NEXT, next)),
    ],
    "next outside the table": [[d(0x8000, 1, NEXT, SIZE)]],
    "next outside the indirect table": [[d(TABLE, 16, INDIRECT)], [d(0x8000, 1, NEXT, 1)]],
    "an indirect table in an indirect table": [[d(TABLE, 16, INDIRECT)], [d(TABLE, 16, INDIRECT)]],
    "an indirect table with a successor": [[d(TABLE, 16, INDIRECT | NEXT, 1), d(0x8000, 1)], [d(0x8000, 1)]],
    "an indirect table of no bytes": [[d(TABLE, 0, INDIRECT)]],
    "an indirect table of half a descriptor": [[d(TABLE, 24, INDIRECT)]],
    "an indirect table that leaves RAM": [[d(RAM - 16, 32, INDIRECT)]],
    "an indirect table outside RAM": [[d(2 ** 52, 16, INDIRECT)]],
    "a buffer that leaves RAM": [[d(RAM - 4, 5)]],
    "a buffer outside RAM": [[d(RAM, 1)]],
    "a buffer whose end overflows 64 bits": [[d(2 ** 64 - 2048, 0xffff_ffff)]],
    "a readable buffer after a writable one": [[d(0x8000, 1, NEXT | WRITE, 1), d(0x8000, 1)]],
  };
  for (const [what, tables] of Object.entries(broken)) {
    it(`refuses ${what}`, () => {
      const { driver, queue } = pair();
      write(driver, tables);
      assert.throws(() => queue.pop(), QueueError);
    });
  }

  it("refuses an indirect table that was not negotiated", () => {
    const { driver, queue } = pair(false);
    driver.addIndirect(TABLE, [{ gpa: 0x8000, length: 1 }]);
    assert.throws(() => queue.pop(), /VIRTIO_RING_F_INDIRECT_DESC/);
  });

  it("refuses more than 2^32 bytes, takes exactly as many", () => {
    class Endless extends FakeMemory {
      override contains(gpa: number, length: number): boolean {
        return gpa >= 0 && length >= 0;
      }
    }
    const memory = new Endless(RAM);
    for (const [last, isLegal] of [
      [1, true],
      [2, false],
    ] as const) {
      const driver = new DriverQueue(memory, 0x100, SIZE, false);
      const queue = new Queue(memory, driver, { eventIndex: false, indirect: false });
      write(driver, [[d(0, 0xffff_ffff, NEXT, 1), d(0, last)]]);
      if (isLegal) assert.equal(popped(queue).readable.byteLength, 2 ** 32);
      else assert.throws(() => queue.pop(), QueueError);
    }
  });
});

describe("cursor", () => {
  const memory = new FakeMemory(0x100);
  const segments = new Segments(8);
  const reader = new Reader(memory);
  const writer = new Writer(memory);

  beforeEach(() => {
    memory.bytes.forEach((_, index) => (memory.bytes[index] = index));
    segments.clear();
  });

  /** Cuts the 16 bytes 0x10..0x1f, or other pieces, anywhere. */
  function cut(...pieces: readonly (readonly [gpa: number, length: number])[]): void {
    for (const [gpa, length] of pieces) segments.append(gpa, length);
  }

  const cuts: readonly (readonly [gpa: number, length: number])[][] = [
    [[0x10, 16]],
    [
      [0x10, 1],
      [0x11, 2],
      [0x13, 13],
    ],
    [
      [0x10, 5],
      [0x15, 5],
      [0x1a, 6],
    ],
  ];
  for (const pieces of cuts) {
    it(`values and bytes do not care for a cut in ${String(pieces.length)}`, () => {
      cut(...pieces);
      reader.start(segments);
      assert.equal(reader.readU8(), 0x10);
      assert.equal(reader.readU16(), 0x1211);
      assert.equal(reader.readU32(), 0x16151413);
      assert.equal(reader.remaining, 9);
      assert.equal(reader.readU64(), 0x1a191817 + 0x1e1d1c1b * 2 ** 32);
      assert.equal(reader.remaining, 1);
      reader.start(segments);
      reader.skip(4);
      const bytes = new Uint8Array(12);
      reader.readBytes(bytes);
      assert.deepEqual([...bytes], [0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f]);
      writer.start(segments);
      writer.writeU8(0xa0);
      writer.writeU16(0xb1b2);
      writer.writeU32(0xc1c2c3c4);
      writer.writeBytes(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9));
      assert.equal(writer.remaining, 0);
      assert.deepEqual(
        [...memory.bytes.subarray(0x0f, 0x21)],
        [0x0f, 0xa0, 0xb2, 0xb1, 0xc4, 0xc3, 0xc2, 0xc1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x20],
      );
    });
  }

  it("takes ranges out of the middle, for a backend", () => {
    cut([0x10, 4], [0x20, 4], [0x30, 4]);
    reader.start(segments);
    reader.skip(2);
    const taken = new Segments(8);
    reader.take(7, taken);
    assert.deepEqual(ranges(taken), [
      [0x12, 2],
      [0x20, 4],
      [0x30, 1],
    ]);
    assert.equal(taken.byteLength, 7);
    assert.equal(reader.readU8(), 0x31);
  });

  it("the end of the chain is the end: every kind of access throws QueueError", () => {
    cut([0x10, 3]);
    const attempts: (() => unknown)[] = [
      () => reader.readU32(),
      () => reader.readBytes(new Uint8Array(4)),
      () => reader.take(4, new Segments(8)),
      () => reader.skip(4),
      () => writer.writeU32(1),
      () => writer.writeBytes(new Uint8Array(4)),
    ];
    for (const attempt of attempts) {
      reader.start(segments);
      writer.start(segments);
      assert.throws(attempt, QueueError);
    }
  });

  it("more segments than there is room for is a bug, not a silent loss", () => {
    const small = new Segments(1);
    small.append(0, 1);
    assert.throws(() => small.append(0, 1), RangeError);
  });
});
