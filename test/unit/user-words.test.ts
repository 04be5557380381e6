// Needs: a temporary directory. The user's own words on the kernel's command line: they count, or it is said
// that they cannot.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseBoot } from "../../vmm/cli/arguments.js";
import { expectedBoot } from "../../vmm/cli/boot-progress.js";
import { kernelWords } from "../../vmm/cli/kernel-words.js";
import { contentOf } from "../../vmm/cli/partitions.js";
import { changeRootArguments, checkUserWords, chooseInitrd } from "../../vmm/cli/root-disk.js";
import { ConfigError } from "../../vmm/errors.js";
import { defaultInitrd, tinyInitrd } from "../../vmm/host/guest-files.js";
import { Random } from "../fuzz/random.js";
import { gptDisk, mbrDisk } from "../helpers/partitioned-disk.js";

const UUID = "11223344-5566-7788-99aa-bbccddeeff00";
const OTHER = "00000000-0000-0000-0000-000000000001";
const content = new Uint8Array(4096).fill(7);

let folder: string;
let gpt: string;
let mbr: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  gpt = join(folder, "gpt.img");
  mbr = join(folder, "mbr.img");
  const boot = { uuid: OTHER, label: "boot", content };
  writeFileSync(gpt, gptDisk([boot, { uuid: UUID, label: "rootfs ä", content }]));
  writeFileSync(mbr, mbrDisk(0xdead_beef, 3, content));
});
after(() => rmSync(folder, { recursive: true }));

function problems(...argv: string[]): readonly string[] {
  try {
    checkUserWords(parseBoot(argv));
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.problems;
  }
  return [];
}

describe("expected boot on a software KVM", () => {
  it("is said in minutes for much memory, with the size that makes it long", () => {
    assert.equal(expectedBoot(128), "expect a boot of seconds");
    assert.equal(expectedBoot(2047), "expect a boot of seconds");
    assert.match(expectedBoot(2048), /a minute or more, .* 2048 MiB/);
    assert.match(expectedBoot(7168), /2 minutes or more, .* 7168 MiB/);
    assert.match(expectedBoot(20_480), /4 minutes or more, .* 20480 MiB/);
  });
});

describe("the user's words: as Linux reads them", () => {
  it("blanks part, quotes hold together, the last counts, and -- ends", () => {
    const words = kernelWords('a b=1  b=2\tc="x y" "d=p q" e="" f=a=b -- b=3 g');
    assert.deepEqual([...words.entries()].sort(), [
      ["a", ""],
      ["b", "2"],
      ["c", "x y"],
      ["d", "p q"],
      ["e", ""],
      ["f", "a=b"],
    ]);
    assert.equal(kernelWords('root="/dev/vda1').get("root"), "/dev/vda1");
    assert.equal(kernelWords("").size, 0);
    assert.equal(kernelWords("x--y --z").size, 2);
  });
});

describe("the user's words: root=", () => {
  it("is the root like a disk that is said to be it: the kernel mounts it, or vmlet's init for a COMMAND", () => {
    const argv = ["--disk", "path=d", "-c", "root=/dev/vda1"];
    assert.deepEqual(problems(...argv), []);
    assert.equal(chooseInitrd(parseBoot(argv)), undefined);
    assert.deepEqual(changeRootArguments(parseBoot(argv)), []);
    const command = parseBoot([...argv, "--", "ls"]);
    assert.equal(chooseInitrd(command), tinyInitrd());
    assert.deepEqual(changeRootArguments(command), ["vmlet.root=/dev/vda1"]);
  });

  it("counts more than the disk that is said to be it: a partition of it", () => {
    const options = parseBoot(["--disk", "path=a", "--disk", "path=d,root", "-c", "root=/dev/vdb2", "--", "ls"]);
    assert.deepEqual(changeRootArguments(options), ["vmlet.root=/dev/vdb2"]);
  });

  it("another initramfs, or none, makes of it what it likes", () => {
    for (const more of [["-i", "mine"], ["--no-initrd"]]) {
      const argv = ["-c", "root=LABEL=x init=/x rootfstype=ext4", ...more];
      if (more.length === 2) assert.deepEqual(problems(...argv), []);
      assert.equal(chooseInitrd(parseBoot(argv)), more[1]);
      assert.deepEqual(changeRootArguments(parseBoot(argv)), []);
    }
    assert.equal(chooseInitrd(parseBoot(["-c", "root=/dev/ram0"])), defaultInitrd());
    assert.equal(chooseInitrd(parseBoot(["-c", "debug -- root=/dev/vda"])), defaultInitrd());
  });

  it("PARTUUID= and PARTLABEL= are found on the disks, in either kind of table", () => {
    for (const [root, device] of [
      [`PARTUUID=${UUID}`, "/dev/vdb2"],
      [`PARTUUID=${UUID.toUpperCase()}`, "/dev/vdb2"],
      ["PARTLABEL=boot", "/dev/vdb1"],
      ["PARTUUID=deadbeef-03", "/dev/vda3"],
    ] as const) {
      const argv = ["--disk", `path=${mbr}`, "--disk", `path=${gpt}`, "-c", `root=${root}`];
      assert.deepEqual(problems(...argv), []);
      assert.deepEqual(changeRootArguments(parseBoot([...argv, "--", "ls"])), [`vmlet.root=${device}`]);
    }
    const quoted = ["--disk", `path=${gpt}`, "-c", '"root=PARTLABEL=rootfs ä"'];
    assert.deepEqual(problems(...quoted), []);
  });

  it("a partition that is not there, and partitions where a file system was said to be", () => {
    const disk = (path: string, ...more: string[]) =>
      problems("--disk", `path=${path}${more[0] ?? ""}`, ...more.slice(1));
    assert.deepEqual(disk(gpt, "", "-c", "root=/dev/vda3"), [`root=/dev/vda3: ${gpt} has no partition 3, only 1, 2`]);
    assert.deepEqual(disk(mbr, "", "-c", "root=/dev/vda3"), []);
    assert.deepEqual(disk(mbr, "", "-c", "root=/dev/vda5"), []);
    const whole = join(folder, "whole.img");
    const bytes = Buffer.alloc(4096);
    bytes.writeUInt16LE(0xef53, 0x438);
    // With a boot sector in front, as some have.
    mbrDisk(1, 1, content).copy(bytes, 0, 0, 512);
    writeFileSync(whole, bytes);
    assert.match(disk(whole, "", "-c", "root=/dev/vda1")[0] ?? "", /is one file system.*: root=\/dev\/vda$/);
    assert.deepEqual(disk(whole, ",root"), []);
    const hint = `${gpt} has partitions (1, 2): say which is the root: --cmdline root=/dev/vda1`;
    assert.deepEqual(disk(gpt, ",root"), [hint]);
    assert.deepEqual(disk(gpt, ",root", "--", "ls"), [hint]);
    assert.deepEqual(disk(gpt, ",root", "-c", "root=/dev/vda2"), []);
    assert.deepEqual(disk(gpt, ",root", "--no-initrd"), []);
    assert.deepEqual(disk(gpt, ",root", "-i", "mine"), []);
  });

  it("that leads nowhere is said", () => {
    assert.match(problems("-c", "root=/dev/vda1")[0] ?? "", /names a disk that is not there: 0 are attached/);
    const one = ["--disk", `path=${gpt}`];
    assert.match(problems(...one, "-c", "root=/dev/vdb")[0] ?? "", /not there: 1 is attached/);
    assert.match(problems(...one, "-c", `root=PARTUUID=${OTHER.replace("1", "2")}`)[0] ?? "", /no disk has such/);
    assert.match(problems("--disk", "path=/none", "-c", "root=PARTUUID=deadbeef-03")[0] ?? "", /no disk has such/);
    for (const root of ["UUID=1234-5678", "LABEL=root"]) {
      assert.match(problems(...one, "-c", `root=${root}`)[0] ?? "", /name the device, or PARTUUID=/);
    }
  });
});

describe("the user's words: what cannot take effect is said", () => {
  const cases: readonly (readonly [argv: readonly string[], message: RegExp])[] = [
    [["-c", "init=/bin/foo"], /init=\/bin\/foo has no effect: an initramfs has rdinit=/],
    [["-c", "init=/bin/foo", "--", "ls"], /init=\/bin\/foo and a COMMAND/],
    [["-c", "rdinit=/bin/foo", "--", "ls"], /rdinit=\/bin\/foo and a COMMAND/],
    [["-c", "vmlet.exec=bHM", "--", "ls"], /vmlet.exec=bHM and a COMMAND/],
    [["--disk", "path=d,root", "-c", "rdinit=/x"], /rdinit=\/x has no effect/],
    [["--disk", "path=d", "-c", "root=/dev/vda rdinit=/x"], /rdinit=\/x has no effect/],
    [["-c", "rootfstype=ext4"], /rootfstype=ext4 has no effect without a root/],
    [["-c", "rootflags=noatime"], /rootflags=noatime has no effect without a root/],
  ];
  for (const [argv, message] of cases) {
    it(argv.join(" "), () => assert.match(problems(...argv).join("\n"), message));
  }

  it("what does is not complained about", () => {
    for (const argv of [
      ["-c", "rdinit=/bin/busybox -- cat /hello"],
      ["-c", "debug -- init=/x rdinit=/y", "--", "ls"],
      ["--disk", "path=d,root", "-c", "init=/bin/sh rootfstype=ext4 rootflags=noatime"],
      ["--disk", "path=d,root", "-c", "rootfstype=ext4 ro", "--", "ls"],
      ["--no-initrd", "-c", "rdinit=/built-in"],
      ["-i", "mine", "-c", "init=/x rdinit=/y root=LABEL=z", "--", "ls"],
    ]) {
      assert.deepEqual(problems(...argv), []);
    }
  });
});

describe("partition tables", () => {
  it("of both kinds, and of blocks of 4 KiB", () => {
    assert.deepEqual(contentOf(gpt).partitions, [
      { number: 1, uuid: OTHER, label: "boot" },
      { number: 2, uuid: UUID, label: "rootfs ä" },
    ]);
    assert.deepEqual(contentOf(mbr).partitions, [{ number: 3, uuid: "deadbeef-03", label: "" }]);
    const large = join(folder, "4k.img");
    writeFileSync(large, gptDisk([{ uuid: UUID, label: "x", content }], 4096));
    assert.deepEqual(contentOf(large, 4096).partitions, [{ number: 1, uuid: UUID, label: "x" }]);
    assert.deepEqual(contentOf(large).partitions, []);
  });

  it("that a guest has spoiled are read all the same, and nothing comes of it", () => {
    const random = new Random(3);
    const path = join(folder, "spoiled.img");
    const good = gptDisk([{ uuid: UUID, label: "x", content }]).subarray(0, 2 ** 17);
    for (let round = 0; round < 300; round++) {
      const bytes = Buffer.from(good);
      for (let count = 0; count < 6; count++) bytes[512 + random.below(92)] = random.pick([0, 0xff, random.below(256)]);
      writeFileSync(path, round % 2 === 0 ? bytes : bytes.subarray(0, random.below(2000)));
      assert.ok(contentOf(path).partitions.length <= 128);
    }
    assert.deepEqual(contentOf("/none").partitions, []);
    assert.deepEqual(contentOf(folder).partitions, []);
  });
});
