// Needs: nothing. Kernel and initrd files on their way into guest memory, at once or by another thread.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KernelImageError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { FileImage } from "../../vmm/x86/file-image.js";

const MIB = 2 ** 20;

describe("file image", () => {
  const bytes = Buffer.alloc(3 * MIB, "a byte that lies elsewhere shows").subarray(0, 3 * MIB - 5);
  let folder = "";
  let path = "";
  let memory: MappedGuestMemory;
  let image: FileImage;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    path = join(folder, "image");
    writeFileSync(path, bytes);
    memory = MappedGuestMemory.map(8 * MIB);
    image = FileImage.open(path);
    image.memory = memory;
  });
  afterEach(() => {
    image.close();
    memory.unmap();
    rmSync(folder, { recursive: true });
  });

  it("what is large is in memory when the promise settles, what is small at once", async () => {
    const reads: Promise<void>[] = [];
    image.later = reads;
    image.readInto(0, 2 * MIB, bytes.length);
    image.readInto(1, 64, 1000);
    assert.equal(reads.length, 1);
    assert.deepEqual(Buffer.from(memory.slice(64, 1000)), bytes.subarray(1, 1001));
    await Promise.all(reads);
    assert.ok(bytes.equals(memory.slice(2 * MIB, bytes.length)));
  });

  it("a file that has become shorter is said to be so, either way", async () => {
    const reads: Promise<void>[] = [];
    truncateSync(path, MIB);
    assert.throws(() => image.readInto(0, 0, bytes.length), KernelImageError);
    image.later = reads;
    image.readInto(0, 0, bytes.length);
    await assert.rejects(Promise.all(reads), {
      name: "KernelImageError",
      message: `${path}: truncated while it was being read`,
    });
  });
});
