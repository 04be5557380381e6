// Needs: a temporary directory; /dev/shm and a readable block device for one test each, skipped without.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Segments } from "../../devices/virtio/segments.js";
import { openDiskFile, type DiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { DiskError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { skip } from "../helpers/skip.js";

const folder = mkdtempSync(join(tmpdir(), "vmlet-disk-"));
const path = join(folder, "disk");

function segments(...ranges: readonly (readonly [gpa: number, length: number])[]): Segments {
  const list = new Segments(1024);
  for (const [gpa, length] of ranges) list.append(gpa, length);
  return list;
}

describe("disk file", () => {
  const options = { path, isReadonly: false, blockSize: 512 } as const;

  function refusal(change: Partial<Parameters<typeof openDiskFile>[0]>): DiskError {
    try {
      closeSync(openDiskFile({ ...options, ...change }).fd);
    } catch (error) {
      assert.ok(error instanceof DiskError);
      return error;
    }
    assert.fail("was opened");
  }

  it("opens what is a disk, with its size", () => {
    writeFileSync(path, new Uint8Array(4096));
    for (const isReadonly of [false, true]) {
      const file = openDiskFile({ ...options, isReadonly, blockSize: 4096 });
      assert.equal(file.size, 4096);
      assert.equal(file.isReadonly, isReadonly);
      closeSync(file.fd);
    }
  });

  it("says what is wrong with what is not", () => {
    assert.match(refusal({ path: join(folder, "none") }).message, /none: no such file$/);
    for (const isReadonly of [false, true]) {
      const error = refusal({ path: folder, isReadonly });
      assert.match(error.message, /: a directory, not a disk image$/);
      assert.match(error.cure ?? "", /mke2fs/);
    }
    assert.match(refusal({ path: join(path, "x") }).message, /not a directory$/);
    assert.match(refusal({ path: "/dev/null" }).message, /neither a file nor a block device$/);
    const fifo = join(folder, "fifo");
    execFileSync("mkfifo", [fifo]);
    assert.match(refusal({ path: fifo, isReadonly: true }).message, /neither a file nor a block device$/);
    writeFileSync(path, new Uint8Array(1000));
    assert.match(refusal({}).message, /1000 bytes are not a multiple of the block size 512 \(488 over\)/);
    writeFileSync(path, new Uint8Array(1024));
    assert.match(refusal({ blockSize: 4096 }).message, /1024 bytes are not a multiple of the block size 4096/);
    writeFileSync(path, "");
    assert.match(refusal({}).message, /empty/);
  });

  it("says that a right is missing", function () {
    if (process.getuid?.() === 0) skip(this, "root may open every file");
    writeFileSync(path, new Uint8Array(512));
    chmodSync(path, 0o444);
    const error = refusal({});
    chmodSync(path, 0o600);
    assert.match(error.message, /permission denied$/);
    assert.equal(error.cure, "attach it readonly, or ask its owner for the right to write it");
  });

  it("knows the size of a block device", function () {
    for (const name of readdirSync("/sys/class/block")) {
      const sectors = Number(readFileSync(`/sys/class/block/${name}/size`, "latin1"));
      let file: DiskFile;
      try {
        if (sectors === 0 || !statSync(`/dev/${name}`).isBlockDevice()) continue;
        file = openDiskFile({ path: `/dev/${name}`, isReadonly: true, blockSize: 512 });
      } catch {
        continue;
      }
      closeSync(file.fd);
      assert.equal(file.size, sectors * 512);
      return;
    }
    skip(this, "no block device here may be read");
  });
});

describe("file disk", () => {
  const SIZE = 4 * MIB;
  const memory = MappedGuestMemory.map(16 * MIB);
  const content = Uint8Array.from({ length: SIZE }, (_, index) => (index >> 12) + index * 11);
  const mayWait = (): boolean => true;
  let file: DiskFile;
  let disk: FileDisk;

  beforeEach(() => {
    writeFileSync(path, content);
    memory.slice(0, 8 * MIB).fill(0);
    file = openDiskFile({ path, isReadonly: false, blockSize: 512 });
    // What waits for the medium, and where: file-disk-slow.test.ts.
    disk = new FileDisk(file, memory, mayWait);
  });
  afterEach(() => closeSync(file.fd));
  after(() => {
    memory.unmap();
    rmSync(folder, { recursive: true });
  });

  it("reads into guest memory, one segment or many, in order", () => {
    assert.equal(disk.read(512, segments([0x1000, 1024])), 0);
    assert.deepEqual(memory.slice(0x1000, 1024), content.subarray(512, 1536));
    assert.equal(disk.read(4096, segments([0x9000, 100], [0x2000, 412], [0x5000, 512])), 0);
    assert.deepEqual(memory.slice(0x9000, 100), content.subarray(4096, 4196));
    assert.deepEqual(memory.slice(0x2000, 412), content.subarray(4196, 4608));
    assert.deepEqual(memory.slice(0x5000, 512), content.subarray(4608, 5120));
  });

  it("writes from guest memory, and flushes", () => {
    memory.slice(0x1000, 512).fill(0xa5);
    memory.slice(0x3000, 512).fill(0x5a);
    assert.equal(disk.write(1024, segments([0x3000, 512], [0x1000, 512])), 0);
    assert.equal(disk.flush(), 0);
    const now = readFileSync(path);
    assert.ok(now.subarray(1024, 1536).every((byte) => byte === 0x5a));
    assert.ok(now.subarray(1536, 2048).every((byte) => byte === 0xa5));
    assert.ok(now.subarray(0, 1024).equals(content.subarray(0, 1024)));
    assert.equal(now.length, SIZE);
  });

  it("moves more segments than one system call takes", () => {
    const pieces = Array.from({ length: 1024 }, (_, index) => [0x10_0000 + 2048 * index, 1024] as const);
    const list = new Segments(2048);
    for (const [gpa, length] of [...pieces, ...pieces.map(([gpa, length]) => [gpa + 1024, length] as const)]) {
      list.append(gpa, length);
    }
    assert.equal(disk.read(0, list), 0);
    assert.deepEqual(memory.slice(0x10_0000, 1024), content.subarray(0, 1024));
    assert.deepEqual(memory.slice(0x10_0000 + 1024, 1024), content.subarray(MIB, MIB + 1024));
    assert.deepEqual(memory.slice(0x10_0000 + 2048 * 1023 + 1024, 1024), content.subarray(2 * MIB - 1024, 2 * MIB));
  });

  it("a file that has become shorter: an error for what is gone, the rest is read", () => {
    ftruncateSync(file.fd, 1024);
    const gone = disk.read(512, segments([0x1000, 1024]));
    assert.notEqual(gone, 0);
    assert.match(disk.explain(gone), /shorter/);
    assert.equal(disk.read(0, segments([0x1000, 1024])), 0);
  });

  it("a full disk is an error with its name, not an exception", () => {
    const full = new FileDisk({ ...file, fd: openSync("/dev/full", "r+") }, memory, mayWait);
    const error = full.write(0, segments([0x1000, 512]));
    assert.equal(full.explain(error), "ENOSPC");
    const closed = new FileDisk({ ...file, fd: 1 << 20 }, memory, mayWait);
    assert.equal(closed.explain(closed.read(0, segments([0x1000, 512]))), "EBADF");
    assert.equal(closed.explain(closed.flush()), "EBADF");
    assert.equal(closed.explain(closed.discard(0, 512)), "EBADF");
    assert.equal(closed.explain(closed.writeZeroes(0, 512, false)), "EBADF");
  });

  it("zeroes a range, with or without giving its space back, and nothing beside it", () => {
    for (const [start, mayUnmap] of [
      [MIB, false],
      [2 * MIB, true],
    ] as const) {
      assert.equal(disk.writeZeroes(start + 512, MIB - 1024, mayUnmap), 0);
      const now = readFileSync(path);
      assert.equal(now.length, SIZE);
      assert.ok(now.subarray(start + 512, start + MIB - 512).every((byte) => byte === 0));
      for (const edge of [start, start + MIB - 512]) {
        assert.ok(now.subarray(edge, edge + 512).equals(content.subarray(edge, edge + 512)));
      }
    }
  });

  it("zeroes by writing where the file system cannot do better", function () {
    // tmpfs punches holes but zeroes no ranges; /dev/null knows neither and takes every write.
    if (statSync("/dev/shm", { throwIfNoEntry: false }) === undefined) skip(this, "no tmpfs at /dev/shm");
    const shared = mkdtempSync("/dev/shm/vmlet-disk-");
    try {
      const inMemory = { ...file, fd: openSync(join(shared, "disk"), "w+") };
      writeFileSync(inMemory.fd, content);
      assert.equal(new FileDisk(inMemory, memory, mayWait).writeZeroes(MIB + 512, MIB - 1024, false), 0);
      const expected = content.slice();
      expected.fill(0, MIB + 512, 2 * MIB - 512);
      assert.ok(readFileSync(join(shared, "disk")).equals(expected));
      closeSync(inMemory.fd);
    } finally {
      rmSync(shared, { recursive: true });
    }
    const odd = new FileDisk({ ...file, fd: openSync("/dev/null", "r+") }, memory, mayWait);
    assert.equal(odd.writeZeroes(0, 3 * MIB, true), 0);
    assert.equal(odd.discard(0, 4096), 0);
  });

  it("discards what it is told to, and keeps the size", () => {
    assert.equal(disk.discard(MIB, MIB), 0);
    const now = readFileSync(path);
    assert.equal(now.length, SIZE);
    assert.ok(now.subarray(0, MIB).equals(content.subarray(0, MIB)));
    assert.ok(now.subarray(2 * MIB).equals(content.subarray(2 * MIB)));
  });
});
