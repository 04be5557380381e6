// Needs: nothing. Disks as users ask for them: configuration, arguments, files.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatDisk, parseDisk } from "../../vmm/cli/disk-argument.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { MetricsFile, type MetricsLine } from "../../vmm/cli/metrics.js";
import { changeRootArguments, chooseInitrd } from "../../vmm/cli/root-disk.js";
import { MAX_VIRTIO_DEVICES } from "../../vmm/config/defaults.js";
import { LINES_WITHOUT_IO_APIC } from "../../vmm/config/devices.js";
import { diskName, type DiskConfig } from "../../vmm/config/disks.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { openDisks } from "../../vmm/virtio/attach/disks.js";
import { ConfigError, DiskError } from "../../vmm/errors.js";
import { VIRTIO_GSIS } from "../../vmm/memory/layout.js";
import { virtioParameters, virtioRanges } from "../../vmm/x86/virtio-ranges.js";

const resolve = (...disks: DiskConfig[]): ReturnType<typeof resolveConfig> => resolveConfig({ kernel: "k", disks });

function problemsOf(...disks: DiskConfig[]): readonly string[] {
  try {
    resolve(...disks);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

describe("disks: configuration", () => {
  it("fills in the defaults", () => {
    assert.deepEqual(resolve({ path: "/images/a very long name of an image.ext4" }).disks, [
      {
        path: "/images/a very long name of an image.ext4",
        isRoot: false,
        partuuid: undefined,
        isReadonly: false,
        format: "auto",
        id: "a_very_long_name_of_",
        cache: "writeback",
        blockSize: 512,
        lock: true,
        rateLimiter: undefined,
      },
    ]);
    assert.deepEqual(resolveConfig({ kernel: "k" }).disks, []);
  });

  it("the root disk is named on the command line, even a bare one, and before the caller's words", () => {
    const disks = [{ path: "a" }, { path: "b", isRoot: true }];
    assert.match(resolve(...disks).cmdline, / root=\/dev\/vdb rw$/);
    const bare = { kernel: "k", bareCmdline: true, cmdline: "root=/dev/vda1" };
    assert.equal(resolveConfig({ ...bare, disks }).cmdline, "root=/dev/vdb rw root=/dev/vda1");
    assert.match(resolve({ path: "a", isRoot: true, isReadonly: true }).cmdline, /root=\/dev\/vda ro$/);
  });

  it("a root disk is found by its partition's identifier, if that is given", () => {
    const partuuid = "0eaa91a0-01";
    assert.match(
      resolve({ path: "d" }, { path: "a", isRoot: true, partuuid }).cmdline,
      / root=PARTUUID=0eaa91a0-01 rw$/,
    );
    assert.match(
      resolve({ path: "a", isRoot: true, isReadonly: true, partuuid }).cmdline,
      / root=PARTUUID=0eaa91a0-01 ro$/,
    );
    assert.doesNotMatch(resolve({ path: "a", partuuid }).cmdline, /root=/);
    for (const bad of ["", "a b", "a\nb", "x".repeat(65), "\u00e9"]) {
      assert.equal(problemsOf({ path: "a", isRoot: true, partuuid: bad }).length, 1, JSON.stringify(bad));
    }
  });

  it("reports everything that is wrong at once", () => {
    const first = { path: "a", isRoot: true, id: "one", colour: 1 } as DiskConfig;
    const second = { path: "b", isRoot: true, id: "one", cache: "none", blockSize: 1024 } as unknown as DiskConfig;
    const third = {
      path: "",
      id: "two words",
      rateLimiter: { bandwidth: { size: -1 }, speed: {} },
    } as unknown as DiskConfig;
    assert.deepEqual(problemsOf(first, second, third), [
      'Disk 1: unknown option "colour"; known are path, isRoot, partuuid, isReadonly, format, id, cache, blockSize, lock, rateLimiter',
      'Disk 2: cache "none" is not one of writeback, unsafe',
      "Disk 2: blockSize 1024 is not one of 512, 4096",
      'Disk 3: path "" is not a path',
      'Disk 3: id "two words" is not 1 to 20 printable characters without spaces',
      'Disk 3: rateLimiter: unknown option "speed"; known are bandwidth, operations',
      "Disk 3: rateLimiter.bandwidth.size -1 is not a whole number from 0 to 9007199254740991",
      "Disk 3: no rateLimiter.bandwidth.oneTimeBurst is given",
      "Disk 3: no rateLimiter.bandwidth.refillTimeMs is given",
      "Only one disk can be the root, given are a, b",
      'Disk id "one" is given to more than one disk',
    ]);
  });

  it("the same image twice is two disks, and there are as many as there are interrupt lines", () => {
    assert.equal(MAX_VIRTIO_DEVICES, VIRTIO_GSIS.length);
    const disks = Array.from({ length: MAX_VIRTIO_DEVICES }, () => ({ path: "same" }));
    assert.deepEqual(problemsOf(...disks), []);
    assert.deepEqual(problemsOf(...disks, { path: "x" }), ["disks has 15 items; the limit is 14"]);
    const devices = { kernel: "k", disks, rng: true };
    assert.throws(() => resolveConfig(devices), /Number of devices 15 is more than 14/);
  });

  it("without the I/O APIC, nine devices have an interrupt line, and more are refused", () => {
    assert.equal(VIRTIO_GSIS.filter((gsi) => gsi < 16).length, LINES_WITHOUT_IO_APIC);
    assert.deepEqual(
      VIRTIO_GSIS.slice(0, LINES_WITHOUT_IO_APIC).filter((gsi) => gsi >= 16),
      [],
    );
    const config = (count: number, cmdline: string) => ({
      kernel: "k",
      cmdline,
      disks: Array.from({ length: count }, () => ({ path: "same" })),
    });
    assert.ok(resolveConfig(config(9, "noapic")).disks.length === 9);
    for (const word of ["noapic", "nolapic"]) {
      const expected = new RegExp(`With ${word} the guest has interrupt lines for 9 virtio devices, not for 10`);
      assert.throws(() => resolveConfig(config(10, `quiet ${word}`)), expected);
    }
    for (const cmdline of ["", "noapictimer", "quiet -- noapic"]) resolveConfig(config(10, cmdline));
  });

  it("names disks and their ranges in order", () => {
    assert.deepEqual([0, 1, 13].map(diskName), ["vda", "vdb", "vdn"]);
    assert.deepEqual(virtioParameters(virtioRanges(2)), [
      "virtio_mmio.device=4K@0xc0001000:5",
      "virtio_mmio.device=4K@0xc0002000:6",
    ]);
  });
});

describe("disks: arguments", () => {
  it("reads every key, and a doubled comma as one of the value's", () => {
    assert.deepEqual(
      parseDisk("path=a,,b.img,root,readonly,format=raw,id=x,cache=unsafe,block=4096,lock=off,bw=20M,ops=500"),
      {
        path: "a,b.img",
        isRoot: true,
        isReadonly: true,
        format: "raw",
        id: "x",
        cache: "unsafe",
        blockSize: 4096,
        lock: false,
        rateLimiter: {
          bandwidth: { size: 20 * 2 ** 20, oneTimeBurst: 0, refillTimeMs: 1000 },
          operations: { size: 500, oneTimeBurst: 0, refillTimeMs: 1000 },
        },
      },
    );
    assert.deepEqual(parseDisk("path=x,,,,,id=y"), { path: "x,,", id: "y" });
    assert.deepEqual(parseDisk("path=a=b"), { path: "a=b" });
  });

  it("what the lab is given reads back as the same disk, but for the path and the root", () => {
    const disk = parseDisk("path=a,root,readonly,format=raw,id=x,,y,cache=unsafe,block=4096,lock=on,bw=7,ops=9");
    const { isRoot, ...rest } = disk;
    assert.equal(isRoot, true);
    assert.deepEqual(parseDisk(formatDisk(disk, "/dev/vdc")), { ...rest, path: "/dev/vdc" });
  });

  const bad: [text: string, message: RegExp][] = [
    ["a.img", /--disk a.img: unknown "a.img"; known are path=/],
    ["root", /no path= is given/],
    ["path=", /path needs a value/],
    ["path", /path needs a value/],
    ["path=a,root=yes", /root takes no value/],
    ["path=a,path=b", /path is given twice/],
    ["path=a,lock=maybe", /lock maybe is not one of on, off/],
    ["path=a,bw=fast", /bw fast is not a size/],
    ["path=a,ops=-1", /ops -1 is not a number/],
    ["path=a,", /unknown ""/],
  ];
  for (const [text, message] of bad) {
    it(`refuses: ${text}`, () => {
      assert.throws(
        () => parseDisk(text),
        (error) => error instanceof UsageError && message.test(error.message),
      );
    });
  }

  it("a root disk needs no initramfs, but a command on it vmlet's init", () => {
    const none = { initrd: undefined, noInitrd: false, disks: [], command: [], cmdline: undefined };
    const root = { ...none, disks: [{ path: "a" }, { path: "b", isRoot: true }] };
    assert.equal(chooseInitrd(root), undefined);
    assert.deepEqual(changeRootArguments(root), []);
    assert.deepEqual(changeRootArguments({ ...root, command: ["ls"] }), ["vmlet.root=/dev/vdb"]);
    assert.equal(chooseInitrd({ ...root, command: ["ls"], initrd: "mine" }), "mine");
    assert.deepEqual(changeRootArguments({ ...root, command: ["ls"], initrd: "mine" }), []);
    assert.throws(() => chooseInitrd({ ...root, noInitrd: true, command: ["ls"] }), ConfigError);
    assert.deepEqual(changeRootArguments({ ...none, command: ["ls"] }), []);
  });
});

describe("disks: files", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  it("opens all or none, and says what is wrong with each", () => {
    const good = join(folder, "good.img");
    const odd = join(folder, "odd.img");
    writeFileSync(good, "");
    truncateSync(good, 8192);
    writeFileSync(odd, "x".repeat(513));
    mkdirSync(join(folder, "sub"));
    const open = (): number => readdirSync("/proc/self/fd").length;
    const before = open();
    const { disks } = resolve({ path: good }, { path: odd }, { path: join(folder, "sub") }, { path: `${folder}/none` });
    assert.throws(
      () => openDisks(disks),
      (error) => {
        assert.ok(error instanceof DiskError);
        const lines = error.message.split("\n");
        assert.equal(lines.length, 3);
        assert.match(lines[0] ?? "", /odd\.img: 513 bytes are not a multiple/);
        assert.match(lines[1] ?? "", /sub: a directory/);
        assert.match(lines[2] ?? "", /none: no such file/);
        assert.match(error.cure ?? "", /truncate.*mke2fs/);
        return true;
      },
    );
    assert.equal(open(), before);
  });
});

describe("metrics", () => {
  it("a line at the end, each counter under the name of the reports", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const path = join(folder, "metrics");
    const file = new MetricsFile(path, () => ({
      exits: { io: 3 },
      devices: { vda: { readBytes: 512 } },
      balloon: undefined,
    }));
    await file.close();
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    assert.equal(lines.length, 1);
    const line = JSON.parse(lines[0] ?? "") as MetricsLine;
    assert.deepEqual([line.exits, line.devices], [{ io: 3 }, { vda: { read_bytes: 512 } }]);
    assert.ok(line.memory_resident_bytes > 2 ** 20 && line.time_ms > 0 && line.cpu_ms > 0);
    rmSync(folder, { recursive: true });
  });
});
