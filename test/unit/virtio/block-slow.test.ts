// Needs: nothing. A block device over a disk that makes requests wait.
import assert from "node:assert/strict";
import {
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from "../../../devices/virtio/block/constants.js";
import { MAX_SLOW_REQUESTS } from "../../../devices/virtio/block/slow-requests.js";
import { FEATURES, readable, rig, writable, writeHeader, writeRanges, type Rig } from "../../helpers/block-rig.js";
import { MemoryDisk } from "../../helpers/memory-disk.js";
import type { DriverBuffer } from "../../helpers/driver-queue.js";

const UNTOUCHED = 0xaa;
const HEADERS = 0x20_0000;
const STATUSES = 0x21_0000;
const BUFFERS = 0x22_0000;
/** Where a buffer of 1.5 MiB fits. */
const LARGE = 0x24_0000;

/** Adds request `index`, with places of its own, and notifies. */
function ask(m: Rig, index: number, type: number, sector: number, ...data: readonly DriverBuffer[]): number {
  writeHeader(m, type, sector, HEADERS + 16 * index);
  m.memory.writeU8(STATUSES + index, UNTOUCHED);
  const head = m.queue.add([readable(16, HEADERS + 16 * index), ...data, writable(1, STATUSES + index)]);
  m.driver.notify(0);
  return head;
}

function status(m: Rig, index: number): number {
  return m.memory.readU8(STATUSES + index);
}

function slowRig(options: Parameters<typeof rig>[0] = {}): Rig {
  const m = rig(options);
  m.disk.isSlow = true;
  return m;
}

function finishOne(m: Rig): void {
  assert.ok(m.disk.finishOne(), "nothing waits");
  m.loop.settle();
}

describe("block device: a slow medium", () => {
  it("answers a read when its bytes have come, over several buffers", () => {
    const m = slowRig();
    const head = ask(m, 0, VIRTIO_BLK_T_IN, 3, writable(100, BUFFERS), writable(412, BUFFERS + 4096));
    assert.deepEqual([m.queue.collect(), status(m, 0)], [[], UNTOUCHED]);
    finishOne(m);
    assert.deepEqual(m.queue.collect(), [{ id: head, length: 513 }]);
    const expected = m.disk.bytes.subarray(3 * 512, 4 * 512);
    assert.deepEqual(m.memory.slice(BUFFERS, 100), expected.subarray(0, 100));
    assert.deepEqual(m.memory.slice(BUFFERS + 4096, 412), expected.subarray(100));
    assert.deepEqual([status(m, 0), m.device.counters.slow, m.device.counters.reads], [OK, 1, 1]);
  });

  it("writes the bytes of the time of the request", () => {
    const m = slowRig();
    m.memory.slice(BUFFERS, 512).fill(0x11);
    const head = ask(m, 0, VIRTIO_BLK_T_OUT, 5, readable(512, BUFFERS));
    m.memory.slice(BUFFERS, 512).fill(0x22);
    finishOne(m);
    assert.deepEqual([m.queue.collect(), status(m, 0)], [[{ id: head, length: 1 }], OK]);
    assert.ok(m.disk.bytes.subarray(5 * 512, 6 * 512).every((byte) => byte === 0x11));
  });

  it("what need not wait overtakes", () => {
    const m = slowRig();
    const slow = ask(m, 0, VIRTIO_BLK_T_IN, 0, writable(512, BUFFERS));
    m.disk.isSlow = false;
    const fast = ask(m, 1, VIRTIO_BLK_T_IN, 1, writable(512, BUFFERS + 512));
    assert.deepEqual(m.queue.collect(), [{ id: fast, length: 513 }]);
    finishOne(m);
    assert.deepEqual(m.queue.collect(), [{ id: slow, length: 513 }]);
  });

  it("a flush answers those that came before it has begun; what comes later waits for the next", () => {
    const m = slowRig();
    const heads = [0, 1, 2].map((index) => ask(m, index, VIRTIO_BLK_T_FLUSH, 0));
    assert.equal(m.disk.later.length, 1);
    finishOne(m);
    assert.deepEqual(m.queue.collect(), [{ id: heads[0], length: 1 }]);
    assert.equal(m.disk.later.length, 1);
    finishOne(m);
    assert.deepEqual(
      m.queue.collect().map(({ id }) => id),
      heads.slice(1),
    );
    assert.equal(m.disk.later.length, 0);
    assert.deepEqual(
      [0, 1, 2].map((index) => status(m, index)),
      [OK, OK, OK],
    );
  });

  it("an error is the request's answer, and is told", () => {
    for (const type of [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH]) {
      const m = slowRig();
      const data = type === VIRTIO_BLK_T_IN ? [writable(512, BUFFERS)] : [readable(512, BUFFERS)];
      ask(m, 0, type, 2, ...(type === VIRTIO_BLK_T_FLUSH ? [] : data));
      m.disk.error = 5;
      finishOne(m);
      assert.equal(m.queue.collect()[0]?.length, type === VIRTIO_BLK_T_IN ? 0 : 1);
      assert.deepEqual([status(m, 0), m.device.counters.hostErrors], [IOERR, 1]);
      assert.match(m.log.join(), /block0: Request of type \d at sector 2 failed: error 5/);
    }
  });

  it("holds the queue at a number of them, and goes on by itself", () => {
    const m = slowRig();
    for (let index = 0; index < MAX_SLOW_REQUESTS + 4; index++) {
      ask(m, index, VIRTIO_BLK_T_IN, index, writable(512, BUFFERS + 512 * index));
    }
    assert.equal(m.disk.later.length, MAX_SLOW_REQUESTS);
    m.driver.notify(0);
    assert.equal(m.disk.later.length, MAX_SLOW_REQUESTS, "a notification gets nobody ahead");
    finishOne(m);
    assert.equal(m.disk.later.length, MAX_SLOW_REQUESTS);
    while (m.disk.finishOne()) m.loop.settle();
    assert.equal(m.queue.collect().length, MAX_SLOW_REQUESTS + 4);
    for (let index = 0; index < MAX_SLOW_REQUESTS + 4; index++) assert.equal(status(m, index), OK);
  });

  it("reads and writes what is larger than a piece, piece by piece", () => {
    const m = slowRig({ sectors: 3000 });
    const length = 3000 * 512;
    const content = m.disk.bytes.slice();
    const cut = (isWritable: boolean): DriverBuffer[] =>
      Array.from({ length: 6 }, (_, index) => ({
        gpa: LARGE + index * 2 ** 18,
        length: Math.min(2 ** 18, length - index * 2 ** 18),
        writable: isWritable,
      }));
    const finishAll = (): string[] => {
      const seen: string[] = [];
      while (m.disk.later.length > 0) {
        seen.push(m.disk.log.at(-1) ?? "");
        finishOne(m);
      }
      return seen;
    };
    const head = ask(m, 0, VIRTIO_BLK_T_IN, 0, ...cut(true));
    assert.deepEqual(finishAll(), ["read later 0+1048576", "read later 1048576+487424"]);
    assert.deepEqual(m.queue.collect(), [{ id: head, length: length + 1 }]);
    assert.ok(Buffer.from(m.memory.slice(LARGE, length)).equals(content));
    m.disk.bytes.fill(0);
    ask(m, 1, VIRTIO_BLK_T_OUT, 0, ...cut(false));
    assert.deepEqual(finishAll(), ["write later 0+1048576", "write later 1048576+487424"]);
    assert.ok(Buffer.from(m.disk.bytes).equals(content));
  });

  it("zeroes and discards elsewhere, piece by piece, range by range", () => {
    const m = slowRig({ sectors: 70_000 });
    const zeroes = writeRanges(m, [
      [0, 40_000, 0],
      [69_999, 1, 1],
    ]);
    const head = ask(m, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, zeroes);
    // The guest may do with its ranges what it likes: they have been read.
    writeRanges(m, [[1, 2, 3]]);
    for (let pieces = 0; pieces < 3; pieces++) {
      assert.deepEqual([m.disk.later.length, m.queue.collect(), status(m, 0)], [1, [], UNTOUCHED]);
      finishOne(m);
    }
    assert.deepEqual([m.queue.collect(), status(m, 0)], [[{ id: head, length: 1 }], OK]);
    const later = (log: readonly string[]): string[] => log.filter((line) => line.includes("later"));
    assert.deepEqual(later(m.disk.log), [
      "zero later 0+16777216",
      "zero later 16777216+3702784",
      "zero later 35839488+512 unmap",
    ]);
    m.disk.log.length = 0;
    ask(m, 1, VIRTIO_BLK_T_DISCARD, 0, writeRanges(m, [[8, 65_536, 0]]));
    while (m.disk.later.length > 0) finishOne(m);
    assert.deepEqual(later(m.disk.log), ["discard later 4096+16777216", "discard later 16781312+16777216"]);
    assert.deepEqual([m.queue.collect().length, status(m, 1), m.device.counters.slow], [1, OK, 2]);
  });

  it("the first piece of a range that fails is the answer, and the last that is tried", () => {
    for (const type of [VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD]) {
      const m = slowRig({ sectors: 65_536 });
      ask(m, 0, type, 0, writeRanges(m, [[0, 65_536, 0]]));
      m.disk.error = 28;
      finishOne(m);
      assert.deepEqual([m.queue.collect().length, status(m, 0), m.disk.later.length], [1, IOERR, 0]);
      assert.equal(m.device.counters.hostErrors, 1);
    }
  });

  it("a reset ends a range after the piece that is under way", () => {
    for (const type of [VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD]) {
      const m = slowRig({ sectors: 65_536 });
      ask(m, 0, type, 0, writeRanges(m, [[0, 65_536, 0]]));
      m.driver.reset();
      finishOne(m);
      assert.deepEqual([m.disk.later.length, status(m, 0)], [0, UNTOUCHED]);
    }
  });

  it("a queue that the driver stops takes its requests along", () => {
    for (const type of [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH]) {
      const m = slowRig();
      const data = type === VIRTIO_BLK_T_IN ? [writable(512, BUFFERS)] : [readable(512, BUFFERS)];
      ask(m, 0, type, 0, ...(type === VIRTIO_BLK_T_FLUSH ? [] : data));
      m.memory.slice(BUFFERS, 512).fill(UNTOUCHED);
      const interrupts = m.interrupts;
      m.driver.stopQueue(0);
      finishOne(m);
      assert.equal(status(m, 0), UNTOUCHED);
      assert.ok(m.memory.slice(BUFFERS, 512).every((byte) => byte === UNTOUCHED));
      assert.deepEqual([m.queue.collect(), m.interrupts], [[], interrupts]);
    }
  });

  for (const type of [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH]) {
    it(`type ${String(type)}: after a reset, nothing of it reaches guest memory, and the next driver is served`, () => {
      const m = slowRig();
      const data = type === VIRTIO_BLK_T_IN ? [writable(512, BUFFERS)] : [readable(512, BUFFERS)];
      for (let index = 0; index < MAX_SLOW_REQUESTS; index++) {
        ask(m, index, type, 0, ...(type === VIRTIO_BLK_T_FLUSH ? [] : data));
      }
      m.memory.slice(BUFFERS, 512).fill(UNTOUCHED);
      m.driver.reset();
      const [queue] = m.driver.start({ features: FEATURES });
      assert.ok(queue !== undefined);
      const next: Rig = { ...m, queue };
      const head = ask(next, MAX_SLOW_REQUESTS, VIRTIO_BLK_T_IN, 1, writable(512, BUFFERS + 512));
      while (m.disk.finishOne()) m.loop.settle();
      assert.deepEqual(queue.collect(), [{ id: head, length: 513 }]);
      for (let index = 0; index < MAX_SLOW_REQUESTS; index++) assert.equal(status(m, index), UNTOUCHED);
      assert.ok(m.memory.slice(BUFFERS, 512).every((byte) => byte === UNTOUCHED));
    });
  }

  it("after a reset, the next driver is served when the last one's writes are over: none of them comes behind its own", () => {
    for (const old of [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES]) {
      const m = slowRig();
      const data = old === VIRTIO_BLK_T_OUT ? readable(512, BUFFERS) : writeRanges(m, [[0, 1, 0]]);
      if (old === VIRTIO_BLK_T_OUT) m.memory.slice(BUFFERS, 512).fill(0x11);
      ask(m, 0, old, 0, data);
      m.driver.reset();
      m.disk.isSlow = false;
      const [queue] = m.driver.start({ features: FEATURES });
      assert.ok(queue !== undefined);
      const next: Rig = { ...m, queue };
      m.memory.slice(BUFFERS + 512, 512).fill(0x22);
      const head = ask(next, 1, VIRTIO_BLK_T_OUT, 0, readable(512, BUFFERS + 512));
      m.loop.settle();
      assert.deepEqual(queue.collect(), [], "it was served too early");
      finishOne(m);
      assert.deepEqual(queue.collect(), [{ id: head, length: 1 }]);
      assert.ok(m.disk.bytes.subarray(0, 512).every((byte) => byte === 0x22));
    }
  });

  describe("another disk in its place", () => {
    const SMALLER = 8;

    function replaced(m: Rig): { disk: MemoryDisk; finished: () => number } {
      const disk = new MemoryDisk(m.memory, SMALLER * 512);
      let count = 0;
      m.device.replaceBackend(disk, () => count++);
      m.loop.settle();
      return { disk, finished: () => count };
    }

    it("what the old one has begun, it finishes and answers; what comes is the new one's", () => {
      const m = slowRig();
      m.memory.slice(BUFFERS, 512).fill(0x11);
      const old = ask(m, 0, VIRTIO_BLK_T_OUT, 40, readable(512, BUFFERS));
      const { disk, finished } = replaced(m);
      assert.equal(finished(), 0, "a write is under way");
      const fresh = ask(m, 1, VIRTIO_BLK_T_IN, 3, writable(512, BUFFERS + 512));
      assert.deepEqual(m.queue.collect(), [{ id: fresh, length: 513 }]);
      assert.deepEqual(m.memory.slice(BUFFERS + 512, 512), disk.bytes.subarray(3 * 512, 4 * 512));
      finishOne(m);
      assert.deepEqual([m.queue.collect(), status(m, 0), finished()], [[{ id: old, length: 1 }], OK, 1]);
      assert.ok(m.disk.bytes.subarray(40 * 512, 41 * 512).every((byte) => byte === 0x11));
      assert.ok(disk.log.every((line) => line.startsWith("read ")));
    });

    it("a long request goes on where it has begun, to its last piece", () => {
      const m = slowRig({ sectors: 4096 });
      const old = ask(m, 0, VIRTIO_BLK_T_IN, 0, writable(1536 * 1024, LARGE));
      const { finished } = replaced(m);
      finishOne(m);
      assert.deepEqual([m.queue.collect(), finished()], [[], 0]);
      finishOne(m);
      assert.deepEqual(m.queue.collect(), [{ id: old, length: 1536 * 1024 + 1 }]);
      assert.equal(finished(), 1);
    });

    it("with nothing in flight the old one is let go in a later turn, and only once", () => {
      const m = rig();
      const { disk, finished } = replaced(m);
      assert.equal(finished(), 1);
      m.loop.advance(1000);
      m.driver.reset();
      assert.deepEqual([finished(), disk.log], [1, []]);
    });

    it("a queue that was held because too much was in flight is served by the new one", () => {
      const m = slowRig();
      for (let index = 0; index <= MAX_SLOW_REQUESTS; index++) {
        ask(m, index, VIRTIO_BLK_T_IN, 1, writable(512, BUFFERS + 512 * index));
      }
      assert.equal(m.disk.later.length, MAX_SLOW_REQUESTS);
      replaced(m);
      assert.equal(status(m, MAX_SLOW_REQUESTS), OK);
      for (let index = 0; index < MAX_SLOW_REQUESTS; index++) finishOne(m);
      for (let index = 0; index < MAX_SLOW_REQUESTS; index++) assert.equal(status(m, index), OK);
    });

    it("a pause waits for what the old one has in flight", async () => {
      const m = slowRig();
      ask(m, 0, VIRTIO_BLK_T_IN, 1, writable(512, BUFFERS));
      replaced(m);
      let isQuiet = false;
      const quiet = Promise.resolve(m.device.quiesce()).then(() => (isQuiet = true));
      await Promise.resolve();
      assert.equal(isQuiet, false);
      finishOne(m);
      await quiet;
      assert.equal(isQuiet, true);
    });

    it("a device that is reset with requests in flight touches nothing any more, and lets the old one go", () => {
      const m = slowRig();
      ask(m, 0, VIRTIO_BLK_T_IN, 1, writable(512, BUFFERS));
      const { finished } = replaced(m);
      m.driver.reset();
      const before = m.memory.bytes.slice();
      finishOne(m);
      assert.deepEqual(m.memory.bytes, before);
      assert.equal(finished(), 1);
    });
  });
});
