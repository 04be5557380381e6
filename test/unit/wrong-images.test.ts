// Needs: nothing; what the compressors, dpkg-deb and bsdtar can try is tried where they are.
// Files given for a kernel or an initramfs that are something else: named, and what is advised works.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { KernelImageError } from "../../vmm/errors.js";
import { findProgram } from "../../vmm/host/programs.js";
import { FileImage } from "../../vmm/x86/file-image.js";
import { loadKernel } from "../../vmm/x86/kernel.js";
import { checkOwnInitrd } from "../../vmm/cli/own-kernel.js";
import { checkInitrd } from "../../vmm/x86/wrong-image.js";
import { elf } from "../helpers/bytes-image.js";
import { FakeMemory } from "../helpers/fake-memory.js";
import { skip } from "../helpers/skip.js";

const MIB = 2 ** 20;
const KERNEL = elf(16 * MIB, [{ gpa: 16 * MIB, bytes: new Uint8Array(100).fill(0xf4) }]);

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
});
after(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  return path;
}

function asKernel(path: string): void {
  const image = FileImage.open(path);
  try {
    loadKernel(
      { path, size: image.size, read: (at, n) => image.read(at, n), readInto: () => undefined },
      new FakeMemory(32 * MIB, 0),
      "auto",
    );
  } finally {
    image.close();
  }
}

function asInitrd(path: string): void {
  const image = FileImage.open(path);
  try {
    checkInitrd(image);
  } finally {
    image.close();
  }
}

function refusal(use: (path: string) => void, path: string): KernelImageError {
  try {
    use(path);
  } catch (error) {
    assert.ok(error instanceof KernelImageError, String(error));
    return error;
  }
  assert.fail(`${path} was taken`);
}

/** Runs the advice up to the comma or semicolon that ends it; returns what it has made. */
function follow(cure: string | undefined): string {
  const command = /^(?:unpack|repack) it: (.*?)(?=, then |, and |; |$)/.exec(cure ?? "")?.[1];
  assert.ok(command !== undefined, cure);
  const before = new Set(readdirSync(folder));
  const { status, stderr } = spawnSync("bash", ["-ec", command], { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, `${command}: ${stderr}`);
  const made = readdirSync(folder).filter((name) => !before.has(name));
  assert.equal(made.length, 1, command);
  return join(folder, made[0] ?? "");
}

const COMPRESSORS = [
  ["gzip", ["-kc"]],
  ["xz", ["-kc", "-0"]],
  ["bzip2", ["-kc"]],
  ["zstd", ["-qc"]],
  ["lz4", ["-qc"]],
  ["lz4", ["-qcl"]],
  ["lzop", ["-c"]],
  ["xz", ["-kc", "--format=lzma"]],
] as const;

describe("what is no kernel is named", () => {
  for (const [program, args] of COMPRESSORS) {
    it(`${program} ${args.join(" ")}: unpacked as advised, it is the kernel`, function () {
      if (findProgram(program) === undefined) skip(this, `${program} is not installed`);
      const packed = execFileSync(program, args, { input: KERNEL });
      for (const name of ["vmlinux.gz", "my kernel's", "-k.x"]) {
        const path = file(name, packed);
        const error = refusal(asKernel, path);
        assert.match(error.message, /compressed with .*, not a kernel$/);
        const made = follow(error.cure);
        assert.deepEqual(readFileSync(made), Buffer.from(KERNEL));
        assert.doesNotThrow(() => asKernel(made));
        rmSync(made);
        rmSync(path);
      }
    });
  }

  it("a Debian package: unpacked as advised, the kernel is in it", function () {
    if (findProgram("dpkg-deb") === undefined) skip(this, "dpkg-deb is not installed");
    const tree = join(folder, "tree");
    mkdirSync(join(tree, "DEBIAN"), { recursive: true });
    mkdirSync(join(tree, "boot"));
    writeFileSync(
      join(tree, "DEBIAN/control"),
      "Package: k\nVersion: 1\nArchitecture: all\nMaintainer: m <m@m>\nDescription: k\n",
    );
    writeFileSync(join(tree, "boot/vmlinuz"), KERNEL);
    const path = join(folder, "linux image.deb");
    execFileSync("dpkg-deb", ["--root-owner-group", "-b", tree, path], { stdio: "pipe" });
    const error = refusal(asKernel, path);
    assert.match(error.message, /a Debian package, not a kernel$/);
    assert.doesNotThrow(() => asKernel(join(follow(error.cure), "boot/vmlinuz")));
  });

  const others: readonly (readonly [name: string, bytes: string, message: RegExp, cure: RegExp])[] = [
    ["an initramfs", "070701".padEnd(512, "0"), /a cpio archive/, /--initrd /],
    ["a disk image", "QFI\xfb\0\0\0\x03".padEnd(512, "\0"), /a qcow2 image/, /in the image/],
    ["a file system", "\0".repeat(0x438) + "\x53\xef".padEnd(2000, "\0"), /ext4/, /--disk path=\S+,readonly/],
    ["a CD", "\0".repeat(0x8001) + "CD001".padEnd(2000, "\0"), /an ISO 9660 image/, /--disk path=/],
    ["an RPM package", "\xed\xab\xee\xdb".padEnd(512, "\0"), /an RPM package/, /rpm2archive/],
    ["a web page", "<!DOCTYPE html><html>".padEnd(512), /a web page/, /vmlinux/],
    ["a script", "#!/bin/sh\n".padEnd(512), /a script/, /vmlinux/],
    ["an EFI program", "MZ".padEnd(1024, "\0"), /an EFI or Windows program/, /bzImage/],
    ["a kernel for ARM64", `MZ${"\0".repeat(0x36)}ARM\x64`.padEnd(1024, "\0"), /kernel for ARM64/, /x86-64/],
    ["chance", "hello".repeat(200), /neither an ELF file nor a bzImage/, /bzImage/],
  ];
  for (const [name, bytes, message, cure] of others) {
    it(name, () => {
      const error = refusal(asKernel, file("other", bytes));
      assert.match(error.message, message);
      assert.match(error.cure ?? "", cure);
    });
  }
});

describe("an ELF file that is no kernel is named", () => {
  const changed = (change: (data: DataView) => void): Uint8Array => {
    const bytes = KERNEL.slice();
    change(new DataView(bytes.buffer));
    return bytes;
  };
  const cases: readonly (readonly [name: string, bytes: Uint8Array, message: RegExp])[] = [
    ["for ARM64", changed((d) => d.setUint16(18, 183, true)), /ELF machine 183 \(ARM64\), needed is 62 \(x86-64\)/],
    ["for a machine of no name", changed((d) => d.setUint16(18, 999, true)), /ELF machine 999, needed/],
    ["a module", changed((d) => d.setUint16(16, 1, true)), /ELF type 1 \(an object or a kernel module\)/],
    ["a library", changed((d) => d.setUint16(16, 3, true)), /ELF type 3 \(a library or a program\)/],
    ["a program", changed((d) => d.setUint32(64, 3, true)), /PT_INTERP/],
  ];
  for (const [name, bytes, message] of cases) {
    it(name, () => assert.match(refusal(asKernel, file("elf", bytes)).message, message));
  }

  it("this Node", () => {
    assert.match(refusal(asKernel, process.execPath).message, /PT_INTERP|a library or a program/);
  });
});

describe("an initramfs for the package's own kernel", () => {
  const cpio = "070701".padEnd(512, "0");

  it("is plain or compressed with gzip", () => {
    for (const bytes of [cpio, gzipSync(cpio)]) assert.doesNotThrow(() => checkOwnInitrd(file("own", bytes)));
  });

  it("compressed otherwise, it is refused with what makes it fit, which does", function () {
    if (findProgram("zstd") === undefined) skip(this, "zstd is not installed");
    const path = file("own one.img", execFileSync("zstd", ["-qc"], { input: cpio }));
    const error = refusal(checkOwnInitrd, path);
    assert.match(error.message, /compressed with Zstandard; vmlet's own kernel unpacks gzip alone/);
    assert.doesNotThrow(() => checkOwnInitrd(follow(error.cure)));
  });

  it("a file system is a disk", () => {
    const error = refusal(checkOwnInitrd, file("a,b.sqfs", "hsqs".padEnd(512, "\0")));
    assert.match(error.cure ?? "", /--disk path=.*a,,b\.sqfs,root/);
  });
});

describe("an initramfs is what Linux takes for one", () => {
  const cpio = "070701".padEnd(512, "0");

  it("cpio archives, plain or with zeroes before them, and file systems of old", () => {
    for (const bytes of [
      cpio,
      "070702".padEnd(512, "0"),
      "\0\0\0\0" + cpio,
      "\0".repeat(512) + cpio,
      "-rom1fs-".padEnd(512, "\0"),
    ]) {
      assert.doesNotThrow(() => asInitrd(file("initrd", bytes)));
    }
  });

  for (const [program, args] of COMPRESSORS) {
    const isTaken = args.join(" ") !== "-qc" || program !== "lz4";
    it(`${program} ${args.join(" ")}: ${isTaken ? "taken" : "Linux does not unpack frames: repacked as advised, it is taken"}`, function () {
      if (findProgram(program) === undefined) skip(this, `${program} is not installed`);
      const path = file(`initrd ${program}`, execFileSync(program, args, { input: cpio }));
      if (isTaken) {
        assert.doesNotThrow(() => asInitrd(path));
        return;
      }
      const error = refusal(asInitrd, path);
      assert.match(error.message, /LZ4, in its frame format, not an initramfs/);
      assert.doesNotThrow(() => asInitrd(follow(error.cure)));
    });
  }

  it("a cpio archive of the old kind: repacked as advised, it is taken", function () {
    if (findProgram("bsdtar") === undefined) skip(this, "bsdtar is not installed");
    for (const format of ["odc", "bin"]) {
      const path = join(folder, `old ${format}`);
      if (spawnSync("bsdtar", ["-cf", path, "--format", format, "package.json"]).status !== 0) continue;
      const error = refusal(asInitrd, path);
      assert.match(error.message, /cpio archive of the old kind/);
      assert.doesNotThrow(() => asInitrd(follow(error.cure)));
    }
  });

  const others: readonly (readonly [name: string, bytes: string | Uint8Array, message: RegExp, cure: RegExp])[] = [
    ["nothing", "", /empty/, /--no-initrd/],
    ["a kernel", KERNEL, /an ELF file/, /--kernel /],
    [
      "a tar archive",
      "\0".repeat(0x101) + "ustar".padEnd(1000, "\0"),
      /a tar archive/,
      /mkdir .* tar -xf .*cpio -o -H newc/,
    ],
    ["a disk", "QFI\xfb\0\0\0\x03".padEnd(512, "\0"), /a qcow2 image/, /qemu-img/],
    ["a CD", "\0".repeat(0x8001) + "CD001".padEnd(2000, "\0"), /an ISO 9660 image/, /--disk/],
    ["a web page", "<html>".padEnd(512), /a web page/, /cpio -o -H newc/],
    ["chance", "hello".repeat(200), /no cpio archive, nor one that Linux unpacks/, /cpio -o -H newc/],
    ["zeroes", new Uint8Array(4096), /no cpio archive/, /cpio -o -H newc/],
    ["an archive after a crooked number of zeroes", "\0\0\0" + cpio, /no cpio archive/, /cpio/],
  ];
  for (const [name, bytes, message, cure] of others) {
    it(`${name} is not`, () => {
      const error = refusal(asInitrd, file("other", bytes));
      assert.match(error.message, message);
      assert.match(error.cure ?? "", cure);
    });
  }
});
