// Needs: nothing. The memory file: what is written is what is read, zeroes take no room, and its checksum is of the
// contents alone.
import assert from "node:assert/strict";
import {
  closeSync,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB, PAGE_SIZE } from "../../vmm/memory/layout.js";
import { FileMemory } from "../../vmm/memory/saved-memory.js";
import { checkMemory, hashMemory, writeMemory } from "../../vmm/snapshot/memory-file.js";

const ID = "0123456789abcdef0123456789abcdef";
const SIZE = 40 * MIB;
/** Address and byte. */
const CHANGES = [
  [5 * MIB, 0],
  [16 * MIB, 1],
  [30 * MIB, 2],
] as const;
const noTurn = (): Promise<void> => Promise.resolve();

describe("snapshot: its memory file", () => {
  let folder: string;
  let memory: MappedGuestMemory;
  const at = (name: string): string => join(folder, name);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-memory-"));
    memory = MappedGuestMemory.map(SIZE);
  });
  afterEach(() => {
    memory.unmap();
    rmSync(folder, { recursive: true });
  });

  async function write(name: string, base?: number, source = memory, isShared = false) {
    const fd = openSync(at(name), "wx+");
    const piece = {
      address: source.hostAddress,
      length: SIZE,
      bases: base === undefined ? [] : [{ fd: base, offset: 0 }],
      isShared,
    };
    const written = await writeMemory(fd, [piece], ID, noTurn);
    return { fd, ...written };
  }

  it("has what the guest had; pages of zeroes are holes, wherever they lie", async () => {
    // The first and the last page, both sides of a border of views, a page that was touched and is zero again.
    for (const gpa of [0, SIZE - 1, 16 * MIB - 1, 16 * MIB, 20 * MIB + 5]) memory.writeU8(gpa, 0xa5);
    memory.writeU8(30 * MIB, 1);
    memory.writeU8(30 * MIB, 0);
    const { fd, dataBytes, sha256 } = await write("memory");
    assert.equal(dataBytes, 5 * PAGE_SIZE);
    const file = readFileSync(at("memory"));
    assert.equal(file.length, SIZE + PAGE_SIZE);
    assert.ok(statSync(at("memory")).blocks * 512 <= 6 * PAGE_SIZE + 65_536);
    assert.equal(Buffer.from(memory.slice(0, SIZE)).compare(file.subarray(0, SIZE)), 0);
    assert.equal(hashMemory(fd, SIZE), sha256);
    checkMemory(fd, "memory", ID, SIZE);
    closeSync(fd);
  });

  it("its checksum is the same without holes, after a copy, and another for one bit", async () => {
    for (let gpa = 0; gpa < SIZE; gpa += 3 * PAGE_SIZE) memory.writeU8(gpa + (gpa % 4096), (gpa / PAGE_SIZE) & 0xff);
    const { fd, sha256 } = await write("memory");
    closeSync(fd);
    copyFileSync(at("memory"), at("copy"));
    const dense = openSync(at("dense"), "wx+");
    writeSync(dense, readFileSync(at("memory")));
    const copy = openSync(at("copy"), "r+");
    assert.deepEqual([hashMemory(copy, SIZE), hashMemory(dense, SIZE)], [sha256, sha256]);
    writeSync(copy, Buffer.of(1), 0, 1, 17 * MIB + 4099);
    assert.notEqual(hashMemory(copy, SIZE), sha256);
    closeSync(copy);
    closeSync(dense);
  });

  it("of memory that was mapped from a file, what was not written comes from there", async () => {
    memory.writeU8(5, 7);
    memory.writeU8(20 * MIB, 8);
    memory.writeU8(39 * MIB, 9);
    const first = await write("first");
    const mapped = MappedGuestMemory.mapFile(first.fd, SIZE);
    mapped.writeU8(20 * MIB, 0);
    mapped.writeU8(25 * MIB, 1);
    const second = await write("second", first.fd, mapped);
    assert.equal(second.dataBytes, 3 * PAGE_SIZE);
    const file = readFileSync(at("second"));
    assert.deepEqual(
      [5, 20 * MIB, 25 * MIB, 39 * MIB].map((gpa) => file[gpa]),
      [7, 0, 1, 9],
    );
    mapped.unmap();
    closeSync(first.fd);
    closeSync(second.fd);
  });

  it("as memory that other processes have, too: page for page the same, zeroes take no room, and it is saved as any other", async () => {
    for (const gpa of [0, 5 * MIB, 16 * MIB - 1, 16 * MIB, SIZE - 1]) memory.writeU8(gpa, 0xa5);
    for (let gpa = 20 * MIB; gpa < 21 * MIB; gpa += 2 * PAGE_SIZE) memory.writeU8(gpa, gpa / PAGE_SIZE);
    const first = await write("first");
    // Over it lie a page that is zero again, one that is another, and one where there was none.
    for (const [gpa, byte] of CHANGES) memory.writeU8(gpa, byte);
    const second = await write("second");
    const pages = new Uint32Array(SIZE / PAGE_SIZE / 32);
    for (const [gpa] of CHANGES) {
      const page = Math.floor(gpa / PAGE_SIZE);
      pages[page >>> 5] = (pages[page >>> 5] ?? 0) | (1 << (page & 31));
    }
    const saved = new FileMemory(first.fd, [{ fd: second.fd, pages }]);
    const copy = saved.ram(SIZE, true);
    const fd = copy.sharedFd;
    assert.ok(fd !== undefined);
    // The file system of memory counts by pages; those of the file that was copied may be larger.
    assert.ok(fstatSync(fd).blocks * 512 <= second.dataBytes + 16 * PAGE_SIZE);
    // To look at a page makes it one.
    assert.equal(Buffer.from(copy.slice(0, SIZE)).compare(Buffer.from(memory.slice(0, SIZE))), 0);
    copy.writeU8(7 * MIB, 9);
    memory.writeU8(7 * MIB, 9);
    const again = await write("again", fd, copy, true);
    assert.equal(again.sha256, (await write("plain")).sha256);
    // Neither the files nor another copy have changed.
    const other = saved.ram(SIZE, true);
    assert.equal(other.readU8(7 * MIB), 0);
    other.unmap();
    copy.unmap();
    assert.throws(() => fstatSync(fd), { code: "EBADF" });
  });

  it("cut, longer, or of another snapshot: refused with the sizes, or the reason", async () => {
    const { fd } = await write("memory");
    const refused = (id: string, length: number, reason: RegExp): void => {
      assert.throws(
        () => {
          checkMemory(fd, "memory", id, length);
        },
        (error) => error instanceof SnapshotError && reason.test(error.message),
      );
    };
    refused("f".repeat(32), SIZE, /memory is not the memory of this snapshot/);
    refused(ID, SIZE - PAGE_SIZE, new RegExp(`memory has ${String(SIZE + PAGE_SIZE)} bytes; .* are ${String(SIZE)}$`));
    ftruncateSync(fd, SIZE);
    refused(ID, SIZE, new RegExp(`memory has ${String(SIZE)} bytes; .* are ${String(SIZE + PAGE_SIZE)}$`));
    closeSync(fd);
  });

  it("a disk that is full, or a file that may not be so large, is one error", async () => {
    memory.writeU8(0, 1);
    const fd = openSync("/dev/full", "w");
    await assert.rejects(writeMemory(fd, [{ address: memory.hostAddress, length: SIZE, bases: [] }], ID, noTurn), {
      errnoName: "ENOSPC",
    });
    closeSync(fd);
  });
});
