// Needs: nothing.
import assert from "node:assert/strict";
import {
  VIRTIO_BLK_CONFIG_BLK_SIZE,
  VIRTIO_BLK_CONFIG_CAPACITY,
  VIRTIO_BLK_CONFIG_MAX_DISCARD_SECTORS,
  VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS,
  VIRTIO_BLK_CONFIG_SEG_MAX,
  VIRTIO_BLK_CONFIG_SIZE_MAX,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_S_UNSUPP as UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from "../../../devices/virtio/block/constants.js";
import { BLOCK_LIMITS } from "../../../devices/virtio/block/limits.js";
import { VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_MMIO_CONFIG } from "../../../devices/virtio/constants.js";
import { hasFeature } from "../../../devices/virtio/features.js";
import type { DriverBuffer } from "../../helpers/driver-queue.js";
import {
  DATA,
  HEADER,
  SECTORS,
  STATUS,
  UNTOUCHED,
  readable,
  request,
  rig,
  writable,
  writeHeader,
  writeRanges,
  type Rig,
} from "../../helpers/block-rig.js";

describe("block device", () => {
  it("says what it is: capacity, limits, features", () => {
    for (const blockSize of [512, 4096] as const) {
      const { driver } = rig({ blockSize });
      assert.equal(driver.readConfigU32(VIRTIO_BLK_CONFIG_CAPACITY), SECTORS);
      assert.equal(driver.readConfigU32(VIRTIO_BLK_CONFIG_CAPACITY + 4), 0);
      assert.equal(driver.readConfigU32(VIRTIO_BLK_CONFIG_BLK_SIZE), blockSize);
      assert.equal(driver.readConfigU32(VIRTIO_BLK_CONFIG_SEG_MAX), 254);
      assert.equal(driver.readConfigU32(VIRTIO_BLK_CONFIG_SIZE_MAX), 256 * 1024);
      // physical_block_exp, alignment_offset, min_io_size: 4 KiB either way.
      assert.equal(driver.readConfigU32(24), blockSize === 512 ? 0x0008_0003 : 0x0001_0000);
      assert.equal(driver.readConfigU32(4096), 0);
    }
    const features = (options: Parameters<typeof rig>[0]): boolean[] => {
      const offered = rig(options).driver.offeredFeatures();
      const bits = [VIRTIO_BLK_F_RO, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
      return bits.map((bit) => hasFeature(offered, bit));
    };
    assert.deepEqual(features({}), [false, true, true, true]);
    assert.deepEqual(features({ cache: "unsafe" }), [false, false, true, true]);
    assert.deepEqual(features({ isReadonly: true }), [true, true, false, false]);
  });

  it("reads: data and status are written, and the used length says so", () => {
    const m = rig();
    assert.deepEqual(request(m, VIRTIO_BLK_T_IN, 3, writable(1024)), { status: OK, used: 1025 });
    assert.deepEqual(m.memory.slice(DATA, 1024), m.disk.bytes.subarray(1536, 2560));
    assert.deepEqual(m.disk.log, ["read 1536+1024"]);
    assert.equal(m.device.counters.readBytes, 1024);
  });

  it("writes: only the status is written to the guest", () => {
    const m = rig();
    m.memory.slice(DATA, 512).fill(0x5a);
    assert.deepEqual(request(m, VIRTIO_BLK_T_OUT, 63, readable(512)), { status: OK, used: 1 });
    assert.ok(m.disk.bytes.subarray(63 * 512).every((byte) => byte === 0x5a));
    assert.equal(m.device.counters.writeBytes, 512);
  });

  it("header, data and status may be cut into descriptors in any way", () => {
    const m = rig();
    writeHeader(m, VIRTIO_BLK_T_IN, 1);
    m.queue.add([readable(3, HEADER), readable(13, HEADER + 3), writable(100), writable(413, DATA + 100)]);
    m.driver.notify(0);
    assert.deepEqual(
      m.queue.collect().map(({ length }) => length),
      [513],
    );
    assert.deepEqual(m.memory.slice(DATA, 512), m.disk.bytes.subarray(512, 1024));
    assert.equal(m.memory.readU8(DATA + 512), OK);
    writeHeader(m, VIRTIO_BLK_T_OUT, 2);
    m.memory.slice(HEADER + 16, 512).fill(0x77);
    m.queue.addIndirect(0x3f_0000, [readable(16 + 512, HEADER), writable(1, STATUS)]);
    m.driver.notify(0);
    assert.ok(m.disk.bytes.subarray(1024, 1536).every((byte) => byte === 0x77));
  });

  it("GET_ID: 20 bytes, padded with zeroes", () => {
    const m = rig();
    assert.deepEqual(request(m, VIRTIO_BLK_T_GET_ID, 0, writable(20)), { status: OK, used: 21 });
    assert.equal(Buffer.from(m.memory.slice(DATA, 20)).toString("latin1"), "a disk".padEnd(20, "\0"));
    assert.deepEqual(request(m, VIRTIO_BLK_T_GET_ID, 0, writable(19)), { status: IOERR, used: 0 });
    const long = rig({ id: "0123456789012345678901234" });
    request(long, VIRTIO_BLK_T_GET_ID, 0, writable(20));
    assert.equal(Buffer.from(long.memory.slice(DATA, 20)).toString("latin1"), "01234567890123456789");
  });

  it("FLUSH reaches the backend, unless the cache is unsafe or the driver did not ask for it", () => {
    const m = rig();
    assert.deepEqual(request(m, VIRTIO_BLK_T_FLUSH, 0), { status: OK, used: 1 });
    assert.deepEqual(m.disk.log, ["flush"]);
    assert.equal(request(rig({ cache: "unsafe" }), VIRTIO_BLK_T_FLUSH, 0).status, UNSUPP);
    assert.equal(request(rig({ features: [] }), VIRTIO_BLK_T_FLUSH, 0).status, UNSUPP);
  });

  it("DISCARD and WRITE_ZEROES: every range, in order", () => {
    const m = rig();
    const data = writeRanges(m, [
      [0, 8, 0],
      [16, 48, 0],
    ]);
    assert.equal(request(m, VIRTIO_BLK_T_DISCARD, 0, data).status, OK);
    const zeroes = writeRanges(m, [
      [8, 1, 0],
      [10, 2, 1],
      [0, 0, 0],
    ]);
    assert.equal(request(m, VIRTIO_BLK_T_WRITE_ZEROES, 0, zeroes).status, OK);
    assert.deepEqual(m.disk.log, ["discard 0+4096", "discard 8192+24576", "zero 4096+512", "zero 5120+1024 unmap"]);
  });

  const ranges: readonly (readonly [string, number, Parameters<typeof writeRanges>[1], number])[] = [
    ["beyond the end", VIRTIO_BLK_T_DISCARD, [[60, 5, 0]], IOERR],
    ["from a sector that overflows", VIRTIO_BLK_T_DISCARD, [[2 ** 63, 1, 0]], IOERR],
    ["with the unmap flag on a discard", VIRTIO_BLK_T_DISCARD, [[0, 1, 1]], UNSUPP],
    ["with an unknown flag", VIRTIO_BLK_T_WRITE_ZEROES, [[0, 1, 2]], UNSUPP],
    [
      "of more ranges than the limit",
      VIRTIO_BLK_T_DISCARD,
      Array.from({ length: 17 }, () => [0, 1, 0] as const),
      IOERR,
    ],
    ["of no range", VIRTIO_BLK_T_DISCARD, [], IOERR],
  ];
  for (const [what, type, list, status] of ranges) {
    it(`refuses type ${String(type)} ${what}`, () => {
      const m = rig();
      assert.equal(request(m, type, 0, writeRanges(m, list)).status, status);
      assert.deepEqual(m.disk.log, []);
      assert.equal(m.device.counters.refused, 1);
    });
  }

  it("takes as many ranges as it says, and none of them if one of them is wrong", () => {
    const m = rig();
    const all = Array.from({ length: BLOCK_LIMITS.ranges }, (_, index) => [index, 1, 0] as const);
    assert.equal(request(m, VIRTIO_BLK_T_WRITE_ZEROES, 0, writeRanges(m, all)).status, OK);
    assert.deepEqual(
      m.disk.log,
      all.map(([sector]) => `zero ${String(512 * sector)}+512`),
    );
    m.disk.log.length = 0;
    const lastIsWrong = writeRanges(m, [...all.slice(1), [SECTORS, 1, 0]]);
    assert.equal(request(m, VIRTIO_BLK_T_WRITE_ZEROES, 0, lastIsWrong).status, IOERR);
    assert.deepEqual(m.disk.log, []);
  });

  it("takes ranges as long as it says, up to the last sector of the disk, in pieces", () => {
    const sectors = BLOCK_LIMITS.writeZeroesSectors;
    const m = rig({ sectors: sectors + 1 });
    assert.equal(request(m, VIRTIO_BLK_T_WRITE_ZEROES, 0, writeRanges(m, [[1, sectors, 0]])).status, OK);
    assert.deepEqual(m.disk.log, ["zero 512+16777216", "zero 16777728+16777216"]);
    assert.equal(request(m, VIRTIO_BLK_T_WRITE_ZEROES, 0, writeRanges(m, [[0, sectors + 1, 0]])).status, IOERR);
    // A discard may be longer than the longest range of zeroes.
    assert.equal(request(m, VIRTIO_BLK_T_DISCARD, 0, writeRanges(m, [[0, sectors + 1, 0]])).status, OK);
    assert.equal(request(m, VIRTIO_BLK_T_DISCARD, 0, writeRanges(m, [[1, sectors + 1, 0]])).status, IOERR);
    assert.deepEqual(m.disk.log.slice(2), ["discard 0+16777216", "discard 16777216+16777216", "discard 33554432+512"]);
  });

  it("lets the loop turn between the pieces of a range", () => {
    const m = rig({ sectors: 100_000 });
    const data = writeRanges(m, [[0, 100_000, 0]]);
    writeHeader(m, VIRTIO_BLK_T_DISCARD, 0);
    m.queue.add([readable(16, HEADER), data, writable(1, STATUS)]);
    m.driver.notify(0);
    for (let pieces = 1; pieces <= 4; pieces++) {
      assert.equal(m.disk.log.length, pieces);
      assert.deepEqual(m.queue.collect(), []);
      m.loop.turn();
    }
    m.loop.settle();
    assert.equal(m.disk.log.length, 4);
    assert.equal(m.queue.collect().length, 1);
  });

  it("refuses half a range, and what was not negotiated", () => {
    const m = rig();
    assert.equal(request(m, VIRTIO_BLK_T_DISCARD, 0, readable(24)).status, IOERR);
    const plain = rig({ features: [] });
    assert.equal(request(plain, VIRTIO_BLK_T_DISCARD, 0, writeRanges(plain, [[0, 1, 0]])).status, UNSUPP);
    assert.equal(request(plain, VIRTIO_BLK_T_WRITE_ZEROES, 0, writeRanges(plain, [[0, 1, 0]])).status, UNSUPP);
    assert.deepEqual([...m.disk.log, ...plain.disk.log], []);
  });

  const refused: readonly (readonly [string, number, number, DriverBuffer[], number])[] = [
    ["a read over the end", VIRTIO_BLK_T_IN, 63, [writable(1024)], IOERR],
    ["a read after the end", VIRTIO_BLK_T_IN, 64, [writable(512)], IOERR],
    ["a write over the end", VIRTIO_BLK_T_OUT, 63, [readable(1024)], IOERR],
    ["a sector whose byte offset overflows 64 bits", VIRTIO_BLK_T_IN, 2 ** 63, [writable(512)], IOERR],
    ["half a sector", VIRTIO_BLK_T_IN, 0, [writable(256)], IOERR],
    ["no data at all", VIRTIO_BLK_T_IN, 0, [], IOERR],
    ["a write without data", VIRTIO_BLK_T_OUT, 0, [], IOERR],
    ["an unknown type", 0x1234, 0, [readable(512)], UNSUPP],
  ];
  for (const [what, type, sector, data, status] of refused) {
    it(`refuses ${what}`, () => {
      const m = rig();
      const answer = request(m, type, sector, ...data);
      assert.equal(answer.status, status);
      assert.deepEqual(m.disk.log, []);
      assert.equal(answer.used, data[0]?.writable === true ? 0 : 1);
    });
  }

  it("a request of more bytes than size_max times seg_max is refused before the backend sees it", () => {
    const m = rig();
    const piece = writable(0x10_0000, 0x30_0000 - 0x10_0000);
    writeHeader(m, VIRTIO_BLK_T_IN, 0, 0x30_0000);
    m.queue.add([readable(16, 0x30_0000), ...Array.from({ length: 64 }, () => piece), writable(1, 0x30_0010)]);
    m.driver.notify(0);
    assert.equal(m.memory.readU8(0x30_0010), IOERR);
    assert.deepEqual(m.disk.log, []);
  });

  it("a read-only disk is not written to, whatever was negotiated", () => {
    const m = rig({ isReadonly: true });
    const before = m.disk.bytes.slice();
    assert.equal(request(m, VIRTIO_BLK_T_OUT, 0, readable(512)).status, IOERR);
    assert.equal(request(m, VIRTIO_BLK_T_DISCARD, 0, writeRanges(m, [[0, 1, 0]])).status, UNSUPP);
    assert.equal(request(m, VIRTIO_BLK_T_WRITE_ZEROES, 0, writeRanges(m, [[0, 1, 0]])).status, UNSUPP);
    assert.deepEqual(m.disk.bytes, before);
    assert.equal(request(m, VIRTIO_BLK_T_IN, 0, writable(512)).status, OK);
  });

  it("a failing host: IOERR, a counter, a line a second, and the next request is served", () => {
    const m = rig();
    m.disk.error = 28;
    assert.deepEqual(request(m, VIRTIO_BLK_T_OUT, 8, readable(512)), { status: IOERR, used: 1 });
    assert.deepEqual(request(m, VIRTIO_BLK_T_IN, 8, writable(512)), { status: IOERR, used: 0 });
    assert.deepEqual(request(m, VIRTIO_BLK_T_FLUSH, 0), { status: IOERR, used: 1 });
    assert.equal(request(m, VIRTIO_BLK_T_DISCARD, 0, writeRanges(m, [[0, 1, 0]])).status, IOERR);
    assert.equal(m.device.counters.hostErrors, 4);
    assert.deepEqual(m.log, ["block0: Request of type 1 at sector 8 failed: error 28"]);
    m.loop.advance(1000);
    request(m, VIRTIO_BLK_T_FLUSH, 0);
    assert.match(m.log[1] ?? "", /3 lines like it/);
    m.disk.error = 0;
    assert.equal(request(m, VIRTIO_BLK_T_IN, 8, writable(512)).status, OK);
  });

  const broken: readonly (readonly [string, DriverBuffer[]])[] = [
    ["no room for a status", [readable(16, HEADER)]],
    ["a header that is too short", [readable(15, HEADER), writable(1, STATUS)]],
    ["no header", [writable(1, STATUS)]],
  ];
  for (const [what, chain] of broken) {
    it(`a request with ${what} cannot be answered: the device needs a reset, and works after it`, () => {
      const m = rig();
      m.queue.add(chain);
      m.driver.notify(0);
      assert.equal(m.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_CONFIG_S_NEEDS_RESET);
      const [queue] = m.driver.start();
      assert.ok(queue !== undefined);
      assert.equal(request({ ...m, queue }, VIRTIO_BLK_T_IN, 0, writable(512)).status, OK);
    });
  }

  it("the configuration space is not the driver's to write", () => {
    const { transport, driver } = rig();
    transport.write(VIRTIO_MMIO_CONFIG, 4, 1);
    assert.equal(driver.readConfigU32(VIRTIO_BLK_CONFIG_CAPACITY), SECTORS);
    assert.ok(driver.readConfigU32(VIRTIO_BLK_CONFIG_MAX_DISCARD_SECTORS) > 0);
    assert.ok(driver.readConfigU32(VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS) > 0);
  });
});

describe("block device: serving", () => {
  /** Makes `count` reads of a sector available without notifying. */
  function fill(m: Rig, count: number): void {
    writeHeader(m, VIRTIO_BLK_T_IN, 0);
    for (let i = 0; i < count; i++) m.queue.add([readable(16, HEADER), writable(512), writable(1, STATUS)]);
  }

  it("one notification serves all that is there, with one interrupt where the driver asks for it", () => {
    const m = rig();
    fill(m, 80);
    m.queue.wantInterrupt(79);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 80);
    assert.equal(m.interrupts, 1);
    assert.equal(m.transport.counters.notifications, 1);
  });

  it("a slow disk does not hold the thread: the turn ends, and goes on later", () => {
    const m = rig();
    const read = m.disk.read.bind(m.disk);
    m.disk.read = (position, data) => {
      m.loop.advance(1);
      return read(position, data);
    };
    fill(m, 24);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 8);
    assert.equal(m.loop.turn(), true);
    assert.equal(m.queue.collect().length, 8);
    m.loop.settle();
    assert.equal(m.queue.collect().length, 8);
  });

  it("a driver that never stops asking does not hold the thread either", () => {
    const m = rig();
    writeHeader(m, VIRTIO_BLK_T_IN, 0);
    const head = m.queue.write([readable(16, HEADER), writable(512), writable(1, STATUS)]);
    m.queue.publish(head);
    const read = m.disk.read.bind(m.disk);
    m.disk.read = (position, data) => {
      m.queue.publish(head);
      return read(position, data);
    };
    m.driver.notify(0);
    const served = m.device.counters.reads;
    assert.ok(served >= 256 && served <= 264, String(served));
    assert.equal(m.loop.turn(), true);
    assert.ok(m.device.counters.reads > served);
  });

  it("the rate limiter holds the queue back and lets it go on by itself", () => {
    const m = rig({ rateLimiter: { operations: { size: 4, oneTimeBurst: 0, refillTimeMs: 100 } } });
    fill(m, 6);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 4);
    assert.equal(m.loop.timerCount, 1);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 0);
    m.loop.advance(24.9);
    assert.equal(m.queue.collect().length, 0);
    m.loop.advance(0.1);
    assert.equal(m.queue.collect().length, 1);
    m.loop.advance(25);
    assert.equal(m.queue.collect().length, 1);
    assert.equal(m.loop.timerCount, 0);
    assert.equal(m.device.counters.throttled, 2);
    m.loop.advance(1000);
    fill(m, 1);
    assert.equal(m.queue.wantsNotification(), true);
    m.driver.notify(0);
    assert.equal(m.queue.collect().length, 1);
  });

  it("bandwidth counts the bytes of reads and writes, not of other requests", () => {
    const m = rig({ rateLimiter: { bandwidth: { size: 512, oneTimeBurst: 512, refillTimeMs: 10 } } });
    for (let i = 0; i < 5; i++) assert.equal(request(m, VIRTIO_BLK_T_GET_ID, 0, writable(20)).status, OK);
    assert.equal(request(m, VIRTIO_BLK_T_IN, 0, writable(512)).status, OK);
    assert.equal(request(m, VIRTIO_BLK_T_IN, 0, writable(512)).status, OK);
    assert.deepEqual(request(m, VIRTIO_BLK_T_IN, 0, writable(512)), { status: UNTOUCHED, used: undefined });
    m.loop.advance(10);
    assert.equal(m.memory.readU8(STATUS), OK);
  });

  it("a reset while the limiter holds the queue takes its timer back", () => {
    const m = rig({ rateLimiter: { operations: { size: 1, oneTimeBurst: 0, refillTimeMs: 100 } } });
    fill(m, 2);
    m.driver.notify(0);
    assert.equal(m.loop.timerCount, 1);
    m.driver.reset();
    assert.equal(m.loop.timerCount, 0);
    const before = m.memory.bytes.slice();
    m.loop.advance(1000);
    assert.deepEqual(m.memory.bytes, before);
    const [queue] = m.driver.start();
    assert.ok(queue !== undefined);
    assert.equal(request({ ...m, queue }, VIRTIO_BLK_T_IN, 0, writable(512)).status, OK);
  });
});
