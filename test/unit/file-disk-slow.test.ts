// Needs: a temporary directory on a file system that can forget what it has cached, for some tests; /dev/shm for one.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BACKEND_BUSY } from "../../devices/virtio/block/backend.js";
import { VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_WRITE_ZEROES } from "../../devices/virtio/block/constants.js";
import { BlockDevice } from "../../devices/virtio/block/device.js";
import { MmioTransport, VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import { Segments } from "../../devices/virtio/segments.js";
import { openDiskFile, type DiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { nodeEventLoop } from "../../vmm/virtio/event-loop.js";
import { skip } from "../helpers/skip.js";
import { VirtioDriver } from "../helpers/virtio-driver.js";

const folder = mkdtempSync(join(tmpdir(), "vmlet-disk-"));
const path = join(folder, "disk");
const SIZE = 4 * MIB;
const content = Uint8Array.from({ length: SIZE }, (_, index) => (index >> 12) + index * 11);

function segment(gpa: number, length: number): Segments {
  const list = new Segments(1);
  list.append(gpa, length);
  return list;
}

describe("file disk: a slow medium", () => {
  const memory = MappedGuestMemory.map(16 * MIB);
  let file: DiskFile;
  let disk: FileDisk;

  beforeEach(() => {
    writeFileSync(path, content);
    memory.slice(0, SIZE).fill(0);
    file = openDiskFile({ path, isReadonly: false, blockSize: 512 });
    disk = new FileDisk(file, memory);
  });
  afterEach(() => disk.close());
  after(() => {
    memory.unmap();
    rmSync(folder, { recursive: true });
  });

  const readLater = (position: number, length: number): Promise<{ error: number; bytes: Uint8Array }> =>
    new Promise((resolve) => disk.readLater(position, length, (error, bytes) => resolve({ error, bytes })));
  const writeLater = (position: number, bytes: Uint8Array): Promise<number> =>
    new Promise((resolve) => disk.writeLater(position, bytes, resolve));
  const discardLater = (position: number, length: number): Promise<number> =>
    new Promise((resolve) => disk.discardLater(position, length, resolve));
  const writeZeroesLater = (position: number, length: number, mayUnmap: boolean): Promise<number> =>
    new Promise((resolve) => disk.writeZeroesLater(position, length, mayUnmap, resolve));
  const flushLater = (): Promise<number> => new Promise((resolve) => disk.flushLater(resolve));

  /** Has the kernel forget what it has cached of the file; false if it does not. */
  function forget(): boolean {
    execFileSync("dd", [`of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"], { stdio: "pipe" });
    return disk.read(MIB, segment(0, 4096)) === BACKEND_BUSY;
  }

  it("reads at once what is cached, and would wait for what is not", async function () {
    assert.equal(disk.read(512, segment(0x1000, 1024)), 0);
    if (!forget()) skip(this, "this file system does not forget");
    assert.equal(disk.read(512, segment(0x1000, 1024)), BACKEND_BUSY);
    const { error, bytes } = await readLater(512, 1024);
    assert.equal(error, 0);
    assert.deepEqual(bytes, content.subarray(512, 1536));
    assert.equal(disk.read(512, segment(0x1000, 1024)), 0);
    assert.deepEqual(memory.slice(0x1000, 1024), content.subarray(512, 1536));
  });

  it("waits where it may, for this thread runs the guest", function () {
    if (!forget()) skip(this, "this file system does not forget");
    const patient = new FileDisk(file, memory, () => true);
    assert.equal(patient.read(0, segment(0x1000, 1024)), 0);
    assert.deepEqual(memory.slice(0x1000, 1024), content.subarray(0, 1024));
    assert.equal(patient.flush(), 0);
  });

  it("files in memory need not wait, whatever their file system can tell", function () {
    if (!existsSync("/dev/shm")) skip(this, "no tmpfs at /dev/shm");
    const shared = mkdtempSync("/dev/shm/vmlet-disk-");
    try {
      const name = join(shared, "disk");
      writeFileSync(name, content);
      const inMemory = new FileDisk(openDiskFile({ path: name, isReadonly: true, blockSize: 512 }), memory);
      assert.equal(inMemory.read(4096, segment(0x1000, 1024)), 0);
      assert.deepEqual(memory.slice(0x1000, 1024), content.subarray(4096, 5120));
      inMemory.close();
    } finally {
      rmSync(shared, { recursive: true });
    }
  });

  it("flushes elsewhere, and only if there is something to flush", async () => {
    // Whoever had the file before may have left something.
    assert.equal(disk.flush(), BACKEND_BUSY);
    assert.equal(await flushLater(), 0);
    assert.equal(disk.flush(), 0);
    assert.equal(disk.write(0, segment(0x1000, 512)), 0);
    assert.equal(disk.flush(), BACKEND_BUSY);
    const flushed = flushLater();
    assert.equal(disk.flush(), BACKEND_BUSY, "not flushed yet");
    assert.equal(disk.write(0, segment(0x1000, 512)), 0);
    assert.equal(await flushed, 0);
    assert.equal(disk.flush(), BACKEND_BUSY, "written meanwhile");
    assert.equal(await flushLater(), 0);
    assert.equal(disk.flush(), 0);
    assert.equal(await discardLater(0, 4096), 0);
    assert.equal(disk.flush(), BACKEND_BUSY);
    assert.equal(await flushLater(), 0);
    assert.equal(await writeZeroesLater(0, 4096, false), 0);
    assert.equal(disk.flush(), BACKEND_BUSY);
  });

  it("zeroes and discards elsewhere, what it was told to and nothing beside it", async () => {
    assert.deepEqual([disk.discard(0, 4096), disk.writeZeroes(0, 4096, true)], [BACKEND_BUSY, BACKEND_BUSY]);
    assert.ok(readFileSync(path).equals(content));
    const expected = content.slice();
    for (const [start, mayUnmap] of [
      [MIB, false],
      [2 * MIB, true],
    ] as const) {
      assert.equal(await writeZeroesLater(start + 512, MIB - 1024, mayUnmap), 0);
      expected.fill(0, start + 512, start + MIB - 512);
    }
    assert.ok(readFileSync(path).equals(expected));
    assert.equal(await discardLater(3 * MIB, MIB), 0);
    const now = readFileSync(path);
    assert.ok(now.length === SIZE && now.subarray(0, 3 * MIB).equals(expected.subarray(0, 3 * MIB)));
  });

  it("many ranges at once are all zeroed", async () => {
    const ranges = Array.from({ length: 100 }, (_, index) => index * 8192);
    const errors = await Promise.all(ranges.map((position) => writeZeroesLater(position, 4096, true)));
    assert.deepEqual(new Set(errors), new Set([0]));
    const expected = content.slice();
    for (const position of ranges) expected.fill(0, position, position + 4096);
    assert.ok(readFileSync(path).equals(expected));
  });

  it("zeroes by writing elsewhere where the file system cannot do better, and others go on meanwhile", async function () {
    this.timeout(20_000);
    // tmpfs punches holes but zeroes no ranges.
    if (!existsSync("/dev/shm")) skip(this, "no tmpfs at /dev/shm");
    const shared = mkdtempSync("/dev/shm/vmlet-disk-");
    try {
      const name = join(shared, "disk");
      const size = 64 * MIB;
      writeFileSync(name, new Uint8Array(size).fill(0xa5));
      const inMemory = new FileDisk(openDiskFile({ path: name, isReadonly: false, blockSize: 512 }), memory);
      const device = new BlockDevice({
        name: "vda",
        backend: inMemory,
        id: "",
        blockSize: 512,
        cache: "writeback",
        loop: nodeEventLoop,
        report: (line) => assert.fail(line),
      });
      const registers = new Int32Array(VIRTIO_MMIO_REGISTER_WORDS);
      const transport = new MmioTransport({
        device,
        memory,
        interrupt: { trigger: () => undefined },
        registers,
        loop: nodeEventLoop,
        report: (line) => assert.fail(line),
      });
      const driver = new VirtioDriver(transport, memory, 8 * MIB);
      const [queue] = driver.start({ features: [VIRTIO_BLK_F_WRITE_ZEROES] });
      assert.ok(queue !== undefined);
      // 16 requests of 16 ranges of 4 MiB less two sectors, 1 GiB in all, at once.
      const statuses = driver.allocate(16, 16);
      for (let index = 0; index < 16; index++) {
        const header = driver.allocate(16);
        memory.writeU32(header, VIRTIO_BLK_T_WRITE_ZEROES);
        const ranges = driver.allocate(256);
        for (let range = 0; range < 16; range++) {
          memory.writeU64(ranges + 16 * range, BigInt(range * 8192 + 1));
          memory.writeU32(ranges + 16 * range + 8, 8190);
        }
        memory.writeU8(statuses + index, 0xff);
        queue.add([
          { gpa: header, length: 16 },
          { gpa: ranges, length: 256 },
          { gpa: statuses + index, length: 1, writable: true },
        ]);
      }
      const start = performance.now();
      let last = start;
      let longestMs = 0;
      let turns = 0;
      driver.notify(0);
      for (let answered = 0; answered < 16; answered += queue.collect().length) {
        await new Promise((resolve) => setImmediate(resolve));
        longestMs = Math.max(longestMs, performance.now() - last);
        last = performance.now();
        turns++;
      }
      const totalMs = performance.now() - start;
      assert.ok(memory.slice(statuses, 16).every((status) => status === 0));
      assert.ok(longestMs < totalMs / 4, `a turn of ${longestMs.toFixed(0)} ms in ${totalMs.toFixed(0)} ms`);
      assert.ok(turns > 256, String(turns));
      const now = readFileSync(name);
      for (let range = 0; range < 16; range++) {
        const piece = now.subarray(range * 4 * MIB, (range + 1) * 4 * MIB);
        assert.ok(piece.subarray(512, -512).every((byte) => byte === 0));
        assert.deepEqual([piece[0], piece[511], piece.at(-512), piece.at(-1)], [0xa5, 0xa5, 0xa5, 0xa5]);
      }
      inMemory.close();
    } finally {
      rmSync(shared, { recursive: true });
    }
  });

  it("writes elsewhere, which a flush covers", async () => {
    assert.equal(await flushLater(), 0);
    const bytes = new Uint8Array(1024).fill(0x5a);
    assert.equal(await writeLater(2048, bytes), 0);
    assert.equal(disk.flush(), BACKEND_BUSY);
    const now = readFileSync(path);
    assert.ok(now.subarray(2048, 3072).equals(bytes) && now.subarray(0, 2048).equals(content.subarray(0, 2048)));
  });

  it("a write that took long has the next ones made elsewhere, until one of those is quick", async () => {
    // Time as this test says it: what a slow medium is cannot be had everywhere.
    const now = performance.now.bind(performance);
    let skewMs = 0;
    performance.now = () => now() + (skewMs += stepMs);
    let stepMs = 0;
    try {
      assert.equal(disk.write(0, segment(0x1000, 512)), 0);
      assert.equal(disk.write(0, segment(0x1000, 512)), 0);
      stepMs = 50;
      assert.equal(disk.write(0, segment(0x1000, 512)), 0);
      stepMs = 0;
      assert.equal(disk.write(0, segment(0x1000, 512)), BACKEND_BUSY);
      stepMs = 50;
      assert.equal(await writeLater(0, new Uint8Array(512)), 0);
      stepMs = 0;
      assert.equal(disk.write(0, segment(0x1000, 512)), BACKEND_BUSY);
    } finally {
      performance.now = now;
    }
    for (let tries = 0; disk.write(0, segment(0x1000, 512)) === BACKEND_BUSY; tries++) {
      assert.ok(tries < 100);
      assert.equal(await writeLater(0, new Uint8Array(512)), 0);
    }
  });

  it("errors have their names", async () => {
    ftruncateSync(file.fd, 1024);
    const short = await readLater(512, 1024);
    assert.match(disk.explain(short.error), /shorter/);
    const full = new FileDisk({ ...file, fd: openSync("/dev/full", "r+") }, memory);
    const error = await new Promise<number>((resolve) => full.writeLater(0, new Uint8Array(512), resolve));
    assert.equal(full.explain(error), "ENOSPC");
    const zeroed = await new Promise<number>((resolve) => full.writeZeroesLater(0, 512, true, resolve));
    assert.equal(full.explain(zeroed), "ENOSPC");
    full.close();
    const closed = new FileDisk({ ...file, fd: 1 << 20 }, memory);
    const flushError = await new Promise<number>((resolve) => closed.flushLater(resolve));
    assert.equal(closed.explain(flushError), "EBADF");
    assert.equal(closed.flush(), BACKEND_BUSY, "what failed is not flushed");
  });

  it("the file is closed when the last call is over, and then there are no more", async () => {
    const reading = readLater(0, 4096);
    disk.close();
    assert.ok(existsSync(`/proc/self/fd/${String(file.fd)}`));
    const { error, bytes } = await reading;
    assert.equal(error, 0);
    assert.deepEqual(bytes, content.subarray(0, 4096));
    assert.ok(!existsSync(`/proc/self/fd/${String(file.fd)}`));
    // Another file has the number now.
    const other = openSync("/dev/full", "r+");
    assert.equal(other, file.fd);
    assert.equal(disk.explain(await writeLater(0, bytes)), "EBADF");
    assert.equal(disk.explain(await discardLater(0, 512)), "EBADF");
    assert.equal(disk.explain(await writeZeroesLater(0, 512, false)), "EBADF");
    closeSync(other);
  });
});
