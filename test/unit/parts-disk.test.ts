// Needs: a temporary directory; qemu-img for one test. A disk that several files make up.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Segments } from "../../devices/virtio/segments.js";
import { BACKEND_BUSY } from "../../devices/virtio/block/backend.js";
import { StateReader } from "../../devices/state.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { ConfigError, DiskError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { templatePath } from "../../vmm/snapshot/template.js";
import { openDisks } from "../../vmm/virtio/attach/disks.js";
import { closeDiskFile, openDiskFile, type DiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { checkDiskIdentity, diskIdentity } from "../../vmm/virtio/backends/disk-identity.js";
import { lockDisk } from "../../vmm/virtio/backends/disk-lock.js";
import { PartsDisk } from "../../vmm/virtio/backends/parts-disk.js";
import { findProgram } from "../../vmm/host/programs.js";
import { emulatedDisk } from "../../vmm/lab/parts-description.js";
import { assertMutationsRefused } from "../helpers/mutated-state.js";
import { skip } from "../helpers/skip.js";

/** The last is neither whole pages nor whole sectors. */
const LENGTHS = [4096, 3 * 4096, MIB, 4096, 5000];
const SIZE = LENGTHS.reduce((sum, length) => sum + length, 0);
const PADDED = Math.ceil(SIZE / 512) * 512;

describe("disk of parts", () => {
  const memory = MappedGuestMemory.map(16 * MIB);
  let folder: string;
  let list: string;
  let content: Buffer;
  const part = (index: number): string => join(folder, `part${String(index)}`);

  function write(parts: unknown): void {
    writeFileSync(list, JSON.stringify(parts));
  }

  function open(change: Partial<Parameters<typeof openDiskFile>[0]> = {}): DiskFile {
    return openDiskFile({ path: list, isReadonly: true, format: "parts", blockSize: 512, ...change });
  }

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-parts-"));
    list = join(folder, "disk.json");
    content = Buffer.alloc(PADDED);
    for (let at = 0; at + 4 <= SIZE; at += 4) content.writeUInt32LE((at * 2654435761) >>> 0, at);
    let start = 0;
    for (const [index, length] of LENGTHS.entries()) {
      writeFileSync(part(index), content.subarray(start, start + length));
      start += length;
    }
    // Some by a relative path, some by an absolute one.
    write({
      parts: LENGTHS.map((bytes, index) => ({ path: index % 2 === 0 ? part(index) : `part${String(index)}`, bytes })),
    });
    memory.slice(0, 8 * MIB).fill(0xee);
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  after(() => memory.unmap());

  function withDisk(mayWait: boolean, use: (disk: PartsDisk) => void): void {
    const disk = new PartsDisk(open(), memory, () => mayWait);
    try {
      use(disk);
    } finally {
      disk.close();
    }
  }

  it("reads inside parts, across two and across all, into one segment or many, and zeroes up to a whole block", () => {
    for (const mayWait of [true, false]) {
      withDisk(mayWait, (disk) => {
        assert.equal(disk.size, PADDED);
        const starts = [
          0,
          512,
          3584,
          4096,
          4 * 4096 - 512,
          4 * 4096,
          4 * 4096 + MIB - 512,
          PADDED - 1024,
          PADDED - 512,
        ];
        for (const start of starts) {
          for (const length of [512, 1024, 4096, 8192, MIB + 8192, PADDED]) {
            if (start + length > PADDED) continue;
            const pieces = new Segments(64);
            let left = length;
            for (let at = 0; left > 0; at++) {
              const piece = Math.min(left, at % 2 === 0 ? 100 + at * 300 : 300_000);
              pieces.append(0x1000 + (length - left) + at * 64, piece);
              left -= piece;
            }
            assert.equal(disk.read(start, pieces), 0, `${String(start)} ${String(length)}`);
            const found = Buffer.concat(
              Array.from({ length: pieces.count }, (_, at) =>
                memory.slice(pieces.gpas[at] ?? 0, pieces.lengths[at] ?? 0),
              ),
            );
            assert.ok(found.equals(content.subarray(start, start + length)), `${String(start)} ${String(length)}`);
          }
        }
      });
    }
  });

  it("reads elsewhere the same bytes, and closes its files only then", async () => {
    const before = readdirSync("/proc/self/fd").length;
    const disk = new PartsDisk(open(), memory);
    const reads = [
      [0, PADDED],
      [3584, 1024],
      [512, 512],
      [PADDED - 512, 512],
    ] as const;
    const all = reads.map(
      ([start, length]) =>
        new Promise<void>((resolve, reject) => {
          disk.readLater(start, length, (error, bytes) => {
            if (error === 0 && content.subarray(start, start + length).equals(bytes)) resolve();
            else reject(new Error(`${String(start)}: ${disk.explain(error)}`));
          });
        }),
    );
    await Promise.all(all);
    disk.close();
    disk.close();
    assert.equal(readdirSync("/proc/self/fd").length, before);
  });

  it("writes nothing, whatever is asked", async () => {
    const disk = new PartsDisk(open(), memory, () => true);
    assert.equal(disk.isReadonly, true);
    for (const error of [disk.write(), disk.discard(), disk.writeZeroes()]) assert.equal(disk.explain(error), "EROFS");
    const later = [
      await new Promise<number>((resolve) => disk.writeLater(0, new Uint8Array(512), resolve)),
      await new Promise<number>((resolve) => disk.discardLater(0, 512, resolve)),
      await new Promise<number>((resolve) => disk.writeZeroesLater(0, 512, true, resolve)),
    ];
    for (const error of later) assert.equal(disk.explain(error), "EROFS");
    assert.equal(disk.flush(), 0);
    assert.equal(await new Promise<number>((resolve) => disk.flushLater(resolve)), 0);
    disk.close();
  });

  it("a part that has become shorter is an error that names it, and the others are read", async () => {
    const disk = new PartsDisk(open(), memory, () => true);
    const pieces = new Segments(1);
    pieces.append(0x1000, 8192);
    truncateSync(part(1), 100);
    const error = disk.read(0, pieces);
    assert.ok(error !== 0 && error !== BACKEND_BUSY);
    assert.equal(disk.explain(error), `${part(1)}: the file is shorter than when it was opened`);
    const later = await new Promise<number>((resolve) => disk.readLater(0, 8192, resolve));
    assert.match(disk.explain(later), /part1: the file is shorter/);
    assert.equal(disk.read(4 * 4096, pieces), 0);
    disk.close();
  });

  const bad: [what: string, parts: unknown, message: RegExp][] = [
    ["no object", [], /no list of a disk's parts: not an object$/],
    ["no parts", {}, /no parts is given$/],
    ["another field", { parts: [], x: 1 }, /unknown field "x"$/],
    ["none", { parts: [] }, /0 parts; there may be 1 to 256$/],
    ["too many", { parts: Array.from({ length: 257 }, () => ({ path: "a", bytes: 4096 })) }, /257 parts/],
    ["a part without a path", { parts: [{ bytes: 1 }] }, /part 1: no path is given$/],
    ["a path that is none", { parts: [{ path: "a\0b", bytes: 1 }] }, /part 1: path is not a path$/],
    ["no bytes", { parts: [{ path: "part0", bytes: 0 }] }, /part 1: bytes 0 is not a whole number from 1 to/],
    ["half a byte", { parts: [{ path: "part0", bytes: 1.5 }] }, /bytes 1\.5 is not/],
    [
      "an odd length in the middle",
      {
        parts: [
          { path: "part4", bytes: 5000 },
          { path: "part0", bytes: 4096 },
        ],
      },
      /part 1: bytes 5000 is not a multiple of 4096, and it is not the last$/,
    ],
    [
      "another length than the file's",
      { parts: [{ path: "part0", bytes: 4095 }] },
      /part .*part0: 4096 bytes, not the 4095 of the list$/,
    ],
    ["a file that is not there", { parts: [{ path: "none", bytes: 4096 }] }, /part .*none: no such file$/],
    ["a folder", { parts: [{ path: ".", bytes: 4096 }] }, /part .*: a directory, not a disk image$/],
  ];
  for (const [what, parts, message] of bad) {
    it(`refuses, and leaves nothing open: ${what}`, () => {
      write(parts);
      const before = readdirSync("/proc/self/fd").length;
      assert.throws(open, (error) => error instanceof DiskError && message.test(error.message));
      assert.equal(readdirSync("/proc/self/fd").length, before);
    });
  }

  it("refuses what is no JSON, too long, or no file; and to write", () => {
    writeFileSync(list, "{ parts");
    assert.throws(open, /disk\.json: no list of a disk's parts: not JSON$/);
    writeFileSync(list, "x".repeat(256 * 1024 + 1));
    assert.throws(open, /262145 bytes are more than 262144$/);
    assert.throws(() => open({ path: folder }), /not a file, which the list of a disk's parts has to be$/);
    assert.throws(
      () => resolveConfig({ kernel: "k", disks: [{ path: list, format: "parts" }] }),
      (error) =>
        error instanceof ConfigError && /disk\.json: a disk of parts is read-only: say so$/.test(error.message),
    );
  });

  it("whoever may write to a part is refused while a guest has it", () => {
    const { disks } = resolveConfig({ kernel: "k", disks: [{ path: list, format: "parts", isReadonly: true }] });
    const [file] = openDisks(disks);
    assert.ok(file);
    const fd = openSync(part(2), "r+");
    try {
      assert.throws(() => lockDisk(part(2), fd, false), /part2: attached already/);
    } finally {
      closeSync(fd);
    }
    for (const again of openDisks(disks)) closeDiskFile(again);
    closeDiskFile(file);
  });

  it("a snapshot knows every part: one that was written to, and one that is another, is refused", () => {
    const file = open();
    const saved = JSON.parse(JSON.stringify(diskIdentity(file))) as unknown;
    const check = (disk: DiskFile): void => checkDiskIdentity(disk, new StateReader(saved, "host"));
    check(file);
    utimesSync(part(3), 5, 5);
    assert.throws(() => check(file), /disk\.json: not as it was .*: of its part .*part3: it was written to at 1970/);
    closeDiskFile(file);

    // A copy of a part is as good; another one in its place is not.
    const copy = join(folder, "copy");
    const withCopy = (): DiskFile => {
      write({ parts: LENGTHS.map((bytes, index) => ({ path: index === 3 ? copy : part(index), bytes })) });
      return open();
    };
    const original = content.subarray(SIZE - 5000 - 4096, SIZE - 5000);
    writeFileSync(copy, original);
    const same = withCopy();
    check(same);
    closeDiskFile(same);
    const other = Buffer.from(original);
    other[77] = (other[77] ?? 0) ^ 1;
    writeFileSync(copy, other);
    const different = withCopy();
    assert.throws(() => check(different), /of its part .*copy: its contents are others$/m);
    closeDiskFile(different);

    write({ parts: [{ path: part(0), bytes: 4096 }] });
    const short = open();
    assert.throws(() => check(short), /it has 1 parts, and had 5$/m);
    assertMutationsRefused(saved, "host", (changed) => {
      try {
        checkDiskIdentity(short, new StateReader(changed, "host"));
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
      }
    });
    closeDiskFile(short);
    const one = openDiskFile({ path: part(0), isReadonly: true, blockSize: 512 });
    assert.throws(() => check(one), /it is one file, and was made of parts$/m);
    closeDiskFile(one);
  });

  it("the lab's emulator reads the same bytes through a description of the parts", function () {
    if (findProgram("qemu-img") === undefined) skip(this, "no program qemu-img (Debian: qemu-utils)");
    writeFileSync(part(4), content.subarray(SIZE - 5000, SIZE - 5000 + 4608));
    write({
      parts: LENGTHS.map((bytes, index) => ({ path: `part${String(index)}`, bytes: index === 4 ? 4608 : bytes })),
    });
    const { path, format } = emulatedDisk({ path: list, format: "parts" }, 2, folder);
    execFileSync("qemu-img", ["convert", "-f", format, "-O", "raw", path, join(folder, "raw")]);
    assert.ok(readFileSync(join(folder, "raw")).equals(content.subarray(0, SIZE - 5000 + 4608)));
    assert.deepEqual(emulatedDisk({ path: "x" }, 0, folder), { path: "x", format: "raw" });
    write({ parts: [{ path: "part4", bytes: 4608 }] });
    writeFileSync(join(folder, 'qu"ote'), content.subarray(0, 512));
    write({ parts: [{ path: 'qu"ote', bytes: 512 }] });
    assert.throws(() => emulatedDisk({ path: list, format: "parts" }, 0, folder), /cannot be in a disk of the lab/);
  });

  it("a template is another when a part has changed", () => {
    const config = resolveConfig({ kernel: part(0), disks: [{ path: list, format: "parts", isReadonly: true }] });
    const before = templatePath(config);
    assert.equal(templatePath(config), before);
    utimesSync(part(4), 5, 5);
    assert.notEqual(templatePath(config), before);
  });
});
