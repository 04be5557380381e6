// Needs: nothing. The parts of the lab that run on this side.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseLab } from "../../vmm/cli/arguments.js";
import { BOCHS } from "../../vmm/lab/bochs.js";
import { diskGeometry } from "../../vmm/lab/disk-geometry.js";
import type { LabOptions } from "../../vmm/lab/emulator.js";
import { MAX_PAYLOAD } from "../../vmm/lab/frames.js";
import { InputQueue } from "../../vmm/lab/input-queue.js";

describe("lab: input queue", () => {
  let sent: [type: string, length: number][] = [];
  let queue: InputQueue;

  beforeEach(() => {
    sent = [];
    queue = new InputQueue((type, payload) => sent.push([type, payload?.length ?? 0]));
  });

  it("sends one frame, and the next when that is acknowledged; the end comes last", () => {
    assert.equal(queue.push(Buffer.alloc(2 * MAX_PAYLOAD + 5)), false);
    queue.end();
    assert.deepEqual(sent, [["I", MAX_PAYLOAD]]);
    queue.acknowledge();
    queue.acknowledge();
    assert.deepEqual(sent.slice(1), [
      ["I", MAX_PAYLOAD],
      ["I", 5],
    ]);
    queue.acknowledge();
    assert.deepEqual(sent.slice(3), [["E", 0]]);
    queue.acknowledge();
    assert.equal(sent.length, 4);
  });

  it("tells when there is room again", () => {
    let drained = 0;
    assert.equal(queue.push(Buffer.alloc(3)), true);
    assert.equal(queue.push(Buffer.alloc(4)), false);
    queue.onceDrained(() => drained++);
    assert.equal(drained, 0);
    queue.acknowledge();
    assert.equal(drained, 1);
    queue.acknowledge();
    assert.equal(drained, 1);
  });

  it("forgets what a command has not read, but not what is under way", () => {
    queue.push(Buffer.alloc(3));
    queue.push(Buffer.alloc(4));
    queue.end();
    queue.clear();
    // The next command's input waits for the answer to the last one's.
    queue.push(Buffer.alloc(7));
    assert.deepEqual(sent, [["I", 3]]);
    queue.acknowledge();
    assert.deepEqual(sent.slice(1), [["I", 7]]);
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
      ...{ help: false, cpu: "intel", model: undefined },
      command: ["sh"],
    });
    assert.equal(parseLab(["--model", "Opteron_G3"]).model, "Opteron_G3");
    for (const model of ["-x", "a,b", "a b", "EPYC,+avx"]) {
      assert.throws(() => parseLab([`--model=${model}`]), /--model ".*" is not a processor's name/);
    }
    assert.throws(() => parseLab(["--cpu", "intel", "--model", "EPYC"]), /--model is for --cpu amd/);
    assert.throws(() => parseLab(["--cpu", "arm"]), /--cpu arm: not one of amd, intel/);
  });
});
