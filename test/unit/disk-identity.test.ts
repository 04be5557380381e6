// Needs: nothing. Whether a disk is still the one of a snapshot.
import assert from "node:assert/strict";
import { closeSync, copyFileSync, mkdtempSync, openSync, rmSync, truncateSync, utimesSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StateReader } from "../../devices/state.js";
import { DiskError } from "../../vmm/errors.js";
import {
  checkDiskIdentity,
  diskDifference,
  diskIdentity,
  readDiskIdentity,
} from "../../vmm/virtio/backends/disk-identity.js";
import { assertMutationsRefused } from "../helpers/mutated-state.js";

const SIZE = 8 * 1024 * 1024;
const LONG_AGO = new Date("2001-02-03T04:05:06.500Z");

describe("disk identity", function () {
  this.timeout(20_000);

  let folder = "";
  let path = "";
  let fd = -1;
  const file = (): { fd: number; size: number; path: string } => ({ fd, size: SIZE, path });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-identity-"));
    path = join(folder, "disk");
    fd = openSync(path, "w+");
    truncateSync(path, SIZE);
    writeSync(fd, Buffer.alloc(1 << 20, "contents"), 0, 1 << 20, 0);
    utimesSync(path, LONG_AGO, LONG_AGO);
  });
  afterEach(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  it("a disk that nobody has touched is the same, also opened again and after a way through a file", () => {
    const saved = JSON.parse(JSON.stringify(diskIdentity(file()))) as unknown;
    checkDiskIdentity(file(), new StateReader(saved, "state"));
    assert.deepEqual(readDiskIdentity(new StateReader(saved, "state")), diskIdentity(file()));
  });

  it("one that was written to is refused, wherever that was, with both times", () => {
    const saved = diskIdentity(file());
    writeSync(fd, Uint8Array.of(1), 0, 1, 5_000_000);
    assert.match(
      diskDifference(saved, file()) ?? "",
      /^it was written to at \d{4}-.*Z, and before the snapshot last at 2001-02-03T04:05:06\.500Z$/,
    );
    assert.throws(
      () => checkDiskIdentity(file(), new StateReader(saved, "state")),
      (error) => error instanceof DiskError && error.message.startsWith(`${path}: not as it was when the snapshot was`),
    );
  });

  it("another size is refused first", () => {
    const saved = diskIdentity(file());
    assert.equal(
      diskDifference(saved, { fd, size: SIZE + 512 }),
      `it has ${String(SIZE + 512)} bytes, and had ${String(SIZE)}`,
    );
  });

  it("a copy is as good, and one with other contents at its start, its end or between is not", () => {
    const saved = diskIdentity(file());
    const copy = join(folder, "copy");
    copyFileSync(path, copy);
    const other = openSync(copy, "r+");
    try {
      const difference = (): string | undefined => diskDifference(saved, { fd: other, size: SIZE });
      assert.equal(difference(), undefined);
      for (const position of [0, 1024, SIZE - 1, Math.floor((SIZE - 4096) / 63) * 31 + 2000]) {
        assert.equal(writeSync(other, Uint8Array.of(0xee), 0, 1, position), 1);
        assert.equal(difference(), "its contents are others", `at ${String(position)}`);
        copyFileSync(path, copy);
        assert.equal(difference(), undefined);
      }
    } finally {
      closeSync(other);
    }
  });

  it("a disk smaller than a block is known, too", () => {
    truncateSync(path, 512);
    const saved = { ...diskIdentity({ fd, size: 512 }), inode: "1" };
    assert.equal(diskDifference(saved, { fd, size: 512 }), undefined);
    writeSync(fd, Uint8Array.of(0xee), 0, 1, 511);
    assert.equal(diskDifference(saved, { fd, size: 512 }), "its contents are others");
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", () => {
    assertMutationsRefused(diskIdentity(file()), "host", (changed) => {
      try {
        checkDiskIdentity(file(), new StateReader(changed, "host"));
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
      }
    });
  });
});
