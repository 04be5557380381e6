// Needs: nothing; what qemu-img, genisoimage, the compressors and mke2fs can try is tried where they are.
// Files that hold a disk without being a raw one: named, and the command that converts them works.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Segments } from "../../devices/virtio/segments.js";
import { DiskError } from "../../vmm/errors.js";
import { findProgram } from "../../vmm/host/programs.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { openDiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { skip } from "../helpers/skip.js";

const KIB = 1024;
const MIB = KIB * KIB;
/** What a shell and a program would take for something else. */
const AWKWARD = ["plain.img", "with space, comma & 'quote'.img", "-rf.img", "no-ending", "two.dots.$(id).img"];

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
});
after(() => rmSync(folder, { recursive: true }));

function opens(path: string, isReadonly = false, format: "auto" | "raw" = "auto"): number {
  const { fd, size } = openDiskFile({ path, isReadonly, blockSize: 512, format });
  closeSync(fd);
  return size;
}

function refusal(path: string, isReadonly = false): DiskError {
  try {
    opens(path, isReadonly);
  } catch (error) {
    assert.ok(error instanceof DiskError, String(error));
    return error;
  }
  assert.fail(`${path} was opened`);
}

/** Runs the first command of an advice, as somebody does who copies it, and returns the new file. */
function follow(cure: string | undefined, ...tools: string[]): string {
  const commands = tools.map((tool) => tool.replaceAll("-", "\\-")).join("|");
  const command = new RegExp(`(?:${commands}) .*?(?=, then |; |$)`).exec(cure ?? "")?.[0];
  assert.ok(command !== undefined, `no command in: ${String(cure)}`);
  const before = new Set(execFileSync("ls", ["-A", folder], { encoding: "utf8" }).split("\n"));
  const { status, stderr } = spawnSync("bash", ["-ec", command], { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, `${command}: ${stderr}`);
  const made = execFileSync("ls", ["-A", folder], { encoding: "utf8" })
    .split("\n")
    .filter((name) => !before.has(name));
  assert.equal(made.length, 1, command);
  return join(folder, made[0] ?? "");
}

/** `length` bytes that no compressor makes nothing of. */
function content(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 7919) >> 9));
}

function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** A file of 64 KiB with `bytes` in it, which begins at `at`, or ends there if it is negative. */
function withBytes(name: string, at: number, bytes: string): string {
  const image = Buffer.alloc(64 * KIB);
  image.write(bytes, at < 0 ? image.length + at : at, "latin1");
  return file(name, image);
}

describe("disk formats: by their magic", () => {
  const formats: readonly (readonly [name: string, at: number, bytes: string, message: RegExp, tool: string])[] = [
    ["qcow2", 0, "QFI\xfb\0\0\0\x03", /a qcow2 image/, "qemu-img convert -f qcow2 -O raw"],
    ["qcow2 of version 2", 0, "QFI\xfb\0\0\0\x02", /a qcow2 image/, "qemu-img convert -f qcow2 -O raw"],
    ["qcow", 0, "QFI\xfb\0\0\0\x01", /a qcow image/, "qemu-img convert -f qcow -O raw"],
    ["QED", 0, "QED\0", /a QED image/, "qemu-img convert -f qed -O raw"],
    ["VMDK", 0, "KDMV", /a VMDK image/, "qemu-img convert -f vmdk -O raw"],
    ["VMDK's description", 0, "# Disk DescriptorFile\n", /description of a VMDK/, "qemu-img convert -f vmdk -O raw"],
    ["VHDX", 0, "vhdxfile", /a VHDX image/, "qemu-img convert -f vhdx -O raw"],
    ["a dynamic VHD", 0, "conectix", /a VHD image/, "qemu-img convert -f vpc -O raw"],
    ["a fixed VHD", -512, "conectix", /a VHD image/, "qemu-img convert -f vpc -O raw"],
    ["VDI", 0x40, "\x7f\x10\xda\xbe", /a VDI image/, "qemu-img convert -f vdi -O raw"],
    ["Parallels", 0, "WithoutFreeSpace", /a Parallels image/, "qemu-img convert -f parallels -O raw"],
    ["Apple", -512, "koly", /an Apple disk image/, "qemu-img convert -f dmg -O raw"],
    ["Android", 0, "\x3a\xff\x26\xed", /Android sparse/, "simg2img"],
    ["xz", 0, "\xfd7zXZ\0", /compressed with xz/, "xz -dc"],
    ["gzip", 0, "\x1f\x8b\x08", /compressed with gzip/, "gzip -dc"],
    ["Zstandard", 0, "\x28\xb5\x2f\xfd", /compressed with Zstandard/, "zstd -dc"],
    ["bzip2", 0, "BZh91AY&SY", /compressed with bzip2/, "bzip2 -dc"],
    ["LZ4", 0, "\x04\x22\x4d\x18", /compressed with LZ4/, "lz4 -dc"],
    ["ZIP", 0, "PK\x03\x04", /a ZIP archive/, "unzip"],
    ["7z", 0, "7z\xbc\xaf\x27\x1c", /a 7z archive/, "7z x"],
  ];
  for (const [name, at, bytes, message, tool] of formats) {
    it(`${name} is refused with the command that converts it, also where its size fits, and taken as format=raw`, () => {
      const path = withBytes("disk.img", at, bytes);
      for (const isReadonly of [false, true]) {
        const error = refusal(path, isReadonly);
        assert.match(error.message, message);
        const { cure = "" } = error;
        assert.ok(cure.includes(tool), cure);
        assert.match(cure, /format=raw/);
        assert.doesNotMatch(cure, /truncate/);
        assert.equal(opens(path, isReadonly, "raw"), 64 * KIB);
      }
    });
  }

  it("an image that is cut in the middle of a block is named all the same", () => {
    const path = file("odd.qcow2", Buffer.from("QFI\xfb\0\0\0\x03".padEnd(1000, "\0"), "latin1"));
    assert.match(refusal(path).message, /a qcow2 image/);
    assert.doesNotMatch(refusal(path).cure ?? "", /truncate/);
  });

  it("an ISO image is a raw one that nobody writes to", () => {
    const path = withBytes("cd.iso", 0x8001, "CD001");
    assert.match(refusal(path).message, /an ISO 9660 image, which nobody writes to/);
    assert.match(refusal(path).cure ?? "", /^attach it readonly/);
    assert.equal(opens(path, true), 64 * KIB);
    assert.equal(opens(path, false, "raw"), 64 * KIB);
  });

  it("an appliance is refused, any other tar archive is data like any data", () => {
    const tar = (name: string): string => {
      const image = Buffer.alloc(10 * KIB);
      image.write(name, 0);
      image.write("ustar", 0x101);
      return file("archive", image);
    };
    assert.match(refusal(tar("machine.ovf")).message, /a tar archive/);
    assert.equal(opens(tar("data.txt")), 10 * KIB);
  });

  it("whatever else is on a raw disk: nothing, file systems, partitions, programs, text, chance", () => {
    const contents: readonly (readonly [at: number, bytes: string])[] = [
      [0, ""],
      [0x1fe, "\x55\xaa"],
      [0x200, "EFI PART"],
      [0x438, "\x53\xef"],
      [0, "hsqs"],
      [0, "XFSB"],
      [0, "LUKS\xba\xbe"],
      [0, "\x7fELF"],
      [0, "#!/bin/sh\n"],
      [0, "hello"],
      [0, "QFI\xfb\xff\xff\xff\xff"],
      [0, "\x1f\x8b"],
      [0, "BZ"],
      [1, "QFI\xfb\0\0\0\x03"],
      [0, content(4096).toString("latin1")],
    ];
    for (const [at, bytes] of contents) assert.equal(opens(withBytes("raw.img", at, bytes)), 64 * KIB);
  });
});

describe("disk formats: what a guest may do", () => {
  it("writes what it likes to every sector; the next start says the way out", () => {
    const path = file("guest.img", Buffer.alloc(64 * KIB));
    const memory = MappedGuestMemory.map(16 * MIB);
    const opened = openDiskFile({ path, isReadonly: false, blockSize: 512 });
    try {
      const disk = new FileDisk(opened, memory, () => true);
      for (const [position, bytes] of [
        [0, "QFI\xfb\0\0\0\x03"],
        [0x8000, "\x01CD001"],
        [63.5 * KIB, "conectix"],
      ] as const) {
        memory.slice(0x1000, 512).fill(0).set(Buffer.from(bytes, "latin1"));
        const data = new Segments(1);
        data.append(0x1000, 512);
        assert.equal(disk.write(position, data), 0);
      }
    } finally {
      closeSync(opened.fd);
      memory.unmap();
    }
    assert.match(refusal(path).cure ?? "", /if it is the raw disk of a guest that has written this there.*format=raw/);
    assert.equal(opens(path, false, "raw"), 64 * KIB);
  });

  it("does not have its host convert an image over a file of the host: the raw disk comes first, and the file is named", () => {
    const image = Buffer.alloc(64 * KIB);
    image.write("QFI\xfb\0\0\0\x03", 0, "latin1");
    image.writeBigUInt64BE(512n, 8);
    image.writeUInt32BE(11, 16);
    image.write("/etc/sh\x1bdow", 512, "latin1");
    const error = refusal(file("over.img", image));
    assert.match(error.message, /it reads from "\/etc\/sh\?dow"/);
    assert.match(
      error.cure ?? "",
      /^if it is the raw disk .*format=raw; only if you know who has made the image: qemu-img/,
    );
    for (const [change, message] of [
      [(bytes: Buffer) => bytes.writeUInt32BE(4, 76), /another file/],
      [(bytes: Buffer) => bytes.write("KDMV"), /the files that it names/],
      [(bytes: Buffer) => bytes.write("vhdxfile"), /its parent/],
    ] as const) {
      const other = Buffer.alloc(64 * KIB);
      other.write("QFI\xfb\0\0\0\x03", 0, "latin1");
      change(other);
      assert.match(refusal(file("other.img", other)).message, message);
    }
  });

  const magicAt = (magic: string, at: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    bytes.write(magic, at, "latin1");
    return bytes;
  };
  for (const [name, magic, at, header, setFlag, clearFlag] of [
    ["QED", "QED\0", 0, 24, (b: Buffer) => b.writeUInt32LE(1, 16), (b: Buffer) => b.writeUInt32LE(0xfffe, 16)],
    ["VHD", "conectix", 0, 64, (b: Buffer) => b.writeUInt32BE(4, 60), (b: Buffer) => b.writeUInt32BE(3, 60)],
    ["VDI", "\x7f\x10\xda\xbe", 0x40, 80, (b: Buffer) => b.writeUInt32LE(4, 76), (b: Buffer) => b.writeUInt32LE(1, 76)],
    ["qcow2", "QFI\xfb\0\0\0\x03", 0, 80, (b: Buffer) => b.writeUInt32BE(4, 76), (b: Buffer) => b.writeUInt32BE(3, 76)],
  ] as const) {
    it(`${name}: another file is named where the header has one, down to the shortest header, and nowhere else`, () => {
      for (const [change, expected] of [
        [setFlag, true],
        [clearFlag, false],
      ] as const) {
        const bytes = magicAt(magic, at, header);
        change(bytes);
        assert.equal(/it reads from another file/.test(refusal(file("header.img", bytes)).message), expected);
      }
      const short = magicAt(magic, at, header - 1);
      assert.doesNotMatch(refusal(file("short.img", short)).message, /reads from/);
    });
  }

  it("qcow2: a name that begins at the file's end, or at 0, is none", () => {
    for (const [offset, expected] of [
      [0, false],
      [1023, true],
      [1024, false],
    ] as const) {
      const bytes = magicAt("QFI\xfb\0\0\0\x03", 0, 1024).fill("/", 512);
      bytes.writeBigUInt64BE(BigInt(offset), 8);
      bytes.writeUInt32BE(5, 16);
      assert.equal(/it reads from "\/"/.test(refusal(file("name.img", bytes)).message), expected, String(offset));
    }
  });
});

describe("disk formats: advice that is followed helps, and spoils nothing", function () {
  // Programs of the host are started.
  this.timeout(30_000);
  const raw = content(MIB);

  for (const [program, compress] of [
    ["gzip", ["-kc"]],
    ["xz", ["-kc", "-0"]],
    ["bzip2", ["-kc"]],
    ["zstd", ["-qc"]],
    ["lz4", ["-qc"]],
    ["lzop", ["-c"]],
  ] as const) {
    it(`${program}, whatever the file is called`, function () {
      if (findProgram(program) === undefined) skip(this, `${program} is not installed`);
      const compressed = execFileSync(program, compress, { input: raw, maxBuffer: 4 * MIB });
      for (const name of AWKWARD) {
        const path = file(name, compressed);
        const made = follow(refusal(path).cure, program);
        assert.equal(opens(made), raw.length);
        assert.deepEqual(readFileSync(made), raw);
        assert.deepEqual(readFileSync(path), compressed);
        // Again: what is there is not overwritten.
        const again = follow(refusal(path).cure, program);
        assert.notEqual(again, made);
        for (const used of [path, made, again]) rmSync(used);
      }
    });
  }

  for (const format of ["qcow2", "qcow", "qed", "vmdk", "vpc", "vhdx", "vdi", "parallels"]) {
    it(`${format}, as qemu-img writes it`, function () {
      if (findProgram("qemu-img") === undefined) skip(this, "qemu-img is not installed");
      const source = file("source", raw);
      for (const name of format === "qcow2" ? AWKWARD : AWKWARD.slice(1, 2)) {
        const path = join(folder, name);
        execFileSync("qemu-img", ["convert", "-f", "raw", "-O", format, source, path], { stdio: "pipe" });
        const made = follow(refusal(path).cure, "qemu-img");
        assert.ok(opens(made) >= raw.length);
        assert.deepEqual(readFileSync(made).subarray(0, raw.length), raw);
        rmSync(path);
        rmSync(made);
      }
      rmSync(source);
    });
  }

  it("an ISO, as genisoimage writes it", function () {
    if (findProgram("genisoimage") === undefined) skip(this, "genisoimage is not installed");
    const path = join(folder, "real.iso");
    execFileSync("genisoimage", ["-quiet", "-o", path, "package.json"], { stdio: "pipe" });
    assert.match(refusal(path).message, /ISO 9660/);
    assert.ok(opens(path, true) > 0);
  });

  it("a size that is not whole: a copy is extended, the file stays as it is", () => {
    for (const name of AWKWARD) {
      const path = file(name, raw.subarray(0, 1000));
      const made = follow(refusal(path).cure, "cp");
      assert.equal(opens(made), 1024);
      assert.deepEqual(readFileSync(path), raw.subarray(0, 1000));
      rmSync(path);
      rmSync(made);
    }
  });

  it("an empty file is given a size", () => {
    const path = file("empty one.img", new Uint8Array());
    const cure = /truncate .*/.exec(refusal(path).cure ?? "")?.[0] ?? "";
    execFileSync("bash", ["-ec", cure], { cwd: folder });
    assert.equal(opens(path), 2 ** 30);
    rmSync(path);
  });

  it("a folder becomes an image", function () {
    if (findProgram("mke2fs") === undefined) skip(this, "mke2fs is not installed");
    const path = join(folder, "a folder");
    mkdirSync(path);
    copyFileSync("package.json", join(path, "file"));
    const made = follow(refusal(path).cure, "mke2fs");
    assert.equal(opens(made), 2 ** 30);
    rmSync(made);
  });

  it("a read-only device is not opened for writing: attached readonly, it works", function () {
    if (process.getuid?.() !== 0 || !existsSync("/dev/loop-control")) skip(this, "loop devices need root");
    const path = file("loop.img", raw);
    const { stdout, status, stderr } = spawnSync("losetup", ["--find", "--show", "--read-only", path], {
      encoding: "utf8",
    });
    if (status !== 0) skip(this, `no loop device: ${stderr.trim()}`);
    const device = stdout.trim();
    try {
      const error = refusal(device);
      assert.match(error.message, /a read-only device$/);
      assert.equal(error.cure, "attach it readonly");
      assert.equal(opens(device, true), raw.length);
    } finally {
      execFileSync("losetup", ["--detach", device]);
    }
  });
});
