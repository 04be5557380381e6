// Needs: nothing. The parts of the lab that run on this side.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseLab } from "../../vmm/cli/arguments.js";
import { BOCHS } from "../../vmm/lab/bochs.js";
import { diskGeometry } from "../../vmm/lab/disk-geometry.js";
import type { LabOptions } from "../../vmm/lab/emulator.js";
import { InputQueue } from "../../vmm/lab/input-queue.js";

describe("lab: input queue", () => {
  let room = 0;
  let taken = "";
  let ends = 0;
  let queue: InputQueue;
  const target = {
    write: (bytes: Uint8Array) => {
      const count = Math.min(room, bytes.length);
      taken += Buffer.from(bytes.subarray(0, count)).toString();
      room -= count;
      return count;
    },
    end: () => {
      ends++;
    },
  };

  beforeEach(() => {
    [room, taken, ends] = [0, "", 0];
    queue = new InputQueue();
  });

  it("keeps what has no room, in order, and what comes before the command does; the end comes last, once", () => {
    assert.equal(queue.push(Buffer.from("abc")), false);
    assert.equal(queue.push(Buffer.alloc(0)), false);
    queue.push(Buffer.from("def"));
    queue.end();
    queue.connect(target);
    assert.deepEqual([taken, ends], ["", 0]);
    room = 4;
    queue.resume();
    assert.deepEqual([taken, ends], ["abcd", 0]);
    room = 10;
    queue.resume();
    queue.resume();
    assert.deepEqual([taken, ends], ["abcdef", 1]);
  });

  it("tells once when there is room again", () => {
    let drained = 0;
    queue.connect(target);
    room = 3;
    assert.equal(queue.push(Buffer.from("abc")), true);
    assert.equal(queue.push(Buffer.from("d")), false);
    queue.onceDrained(() => drained++);
    assert.equal(drained, 0);
    room = 5;
    queue.resume();
    queue.push(Buffer.from("e"));
    assert.deepEqual([drained, taken], [1, "abcde"]);
  });

  it("forgets what a command has not read, and lets nobody wait for it", () => {
    let drained = 0;
    queue.connect(target);
    queue.push(Buffer.from("abc"));
    queue.onceDrained(() => drained++);
    queue.clear();
    assert.equal(queue.push(Buffer.from("more")), true);
    queue.end();
    assert.deepEqual([drained, taken, ends], [1, "", 0]);
  });
});

describe("lab: disk geometry", () => {
  const cases: [bytes: number, heads: number, sectors: number][] = [
    [512, 1, 1],
    [16 * 63 * 512, 16, 63],
    [4096, 1, 8],
    [2 ** 30, 16, 32],
    [32 * 2 ** 30, 16, 32],
  ];
  for (const [bytes, heads, sectors] of cases) {
    it(`${String(bytes)} bytes`, () => {
      const found = diskGeometry(bytes);
      assert.deepEqual(found, { cylinders: bytes / 512 / heads / sectors, heads, sectors });
    });
  }

  it("is none for what is no number of sectors, for nothing, and for too much", () => {
    for (const bytes of [0, 513, 2 ** 40, 262_147 * 512]) assert.equal(diskGeometry(bytes), undefined);
  });
});

describe("lab: what Bochs cannot have is refused before it starts", () => {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  after(() => {
    rmSync(folder, { recursive: true });
  });
  const file = (name: string, size: number): string => {
    const path = join(folder, name);
    writeFileSync(path, "");
    truncateSync(path, size);
    return path;
  };
  const check = (options: Partial<LabOptions>): void => {
    BOCHS.check({ packageRoot: ".", memoryMib: 1024, cpus: 1, inputs: [], ...options });
  };
  const disks = (...paths: string[]): LabOptions["disks"] =>
    paths.map((path) => ({ path, isReadonly: false, cache: "writeback", lock: true }));

  it("memory, disks that are too many, no files, or of a size that is no product", () => {
    const good = file("good", 2 ** 20);
    check({ disks: disks(good, good), memoryMib: 2048 });
    assert.throws(() => check({ memoryMib: 2049 }), /2049 MiB for host and guest are more than the 2048/);
    assert.throws(() => check({ disks: disks(good, good, good) }), /3 disks are more than the 2 of the Intel lab/);
    assert.throws(() => check({ disks: disks("/dev/null") }), /\/dev\/null is not a file/);
    assert.throws(() => check({ disks: disks(file("odd", 262_147 * 512)) }), /odd has a size that no IDE disk has/);
  });
});

describe("lab: arguments", () => {
  it("--cpu chooses the processor", () => {
    assert.equal(parseLab([]).cpu, "amd");
    assert.deepEqual(parseLab(["--cpu", "intel", "--", "sh"]), {
      ...{ help: false, cpu: "intel", model: undefined, nvme: undefined },
      command: ["sh"],
    });
    assert.equal(parseLab(["--model", "Opteron_G3"]).model, "Opteron_G3");
    for (const model of ["-x", "a,b", "a b", "EPYC,+avx"]) {
      assert.throws(() => parseLab([`--model=${model}`]), /--model ".*" is not a processor's name/);
    }
    assert.throws(() => parseLab(["--cpu", "intel", "--model", "EPYC"]), /--model is for --cpu amd/);
    assert.equal(parseLab(["--nvme", "disk.img"]).nvme, "disk.img");
    assert.throws(
      () => parseLab(["--cpu", "intel", "--nvme", "disk.img"]),
      /--nvme is for --cpu amd: Bochs has no IOMMU/,
    );
    assert.throws(() => parseLab(["--nvme="]), /--nvme is given an empty value/);
    assert.throws(() => parseLab(["--cpu", "arm"]), /--cpu arm: not one of amd, intel/);
  });
});
