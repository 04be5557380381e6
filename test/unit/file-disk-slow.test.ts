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
import { Segments } from "../../devices/virtio/segments.js";
import { openDiskFile, type DiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { skip } from "../helpers/skip.js";

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
    disk.discard(0, 4096);
    assert.equal(disk.flush(), BACKEND_BUSY);
    assert.equal(await flushLater(), 0);
    disk.writeZeroes(0, 4096, false);
    assert.equal(disk.flush(), BACKEND_BUSY);
  });

  it("writes elsewhere, which a flush covers", async () => {
    assert.equal(await flushLater(), 0);
    const bytes = new Uint8Array(1024).fill(0x5a);
    assert.equal(await writeLater(2048, bytes), 0);
    assert.equal(disk.flush(), BACKEND_BUSY);
    const now = readFileSync(path);
    assert.ok(now.subarray(2048, 3072).equals(bytes) && now.subarray(0, 2048).equals(content.subarray(0, 2048)));
  });

  it("errors have their names", async () => {
    ftruncateSync(file.fd, 1024);
    const short = await readLater(512, 1024);
    assert.match(disk.explain(short.error), /shorter/);
    const full = new FileDisk({ ...file, fd: openSync("/dev/full", "r+") }, memory);
    const error = await new Promise<number>((resolve) => full.writeLater(0, new Uint8Array(512), resolve));
    assert.equal(full.explain(error), "ENOSPC");
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
    closeSync(other);
  });
});
