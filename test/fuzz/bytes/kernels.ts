// Kernels, initrds and disks: files of the host that somebody else has made.
import assert from "node:assert/strict";
import { DiskError, KernelImageError } from "../../../vmm/errors.js";
import { checkIsRaw } from "../../../vmm/virtio/backends/disk-format.js";
import { readPartsManifest } from "../../../vmm/virtio/backends/parts-manifest.js";
import { loadKernel } from "../../../vmm/x86/kernel.js";
import { checkInitrd } from "../../../vmm/x86/wrong-image.js";
import { bzImage, BytesImage, elf } from "../../helpers/bytes-image.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { allowing, text, type ByteTarget } from "../coverage/byte-target.js";

const MIB = 2 ** 20;
const RAM = 32 * MIB;
const memory = new FakeMemory(RAM);

export const kernelTarget: ByteTarget = {
  name: "kernel",
  parser: "loadKernel: ELF, PVH note, bzImage",
  maxLength: 4096,
  seeds: [
    elf(MIB, [{ gpa: MIB, bytes: new Uint8Array(64), memorySize: 128 }], MIB + 4),
    elf(2 * MIB, [
      { gpa: MIB, bytes: new Uint8Array(16) },
      { gpa: 2 * MIB, bytes: new Uint8Array(16) },
    ]),
    bzImage(),
  ],
  run(input) {
    for (const protocol of ["auto", "pvh", "linux64"] as const) {
      allowing([KernelImageError], () => {
        const { entry, end, cmdlineMax } = loadKernel(new BytesImage(input, memory), memory, protocol);
        assert.ok(entry >= MIB && entry < end && end <= RAM, "an entry outside what was loaded");
        assert.ok(cmdlineMax >= 255);
      });
    }
  },
};

const HEADS = ["070701", "070702", "0707", "\x1f\x8b\x08", "BZh9", "\xfd7zXZ", "QFI\xfb\0\0\0\x03", "KDMV", "conectix"];

export const fileKindTarget: ByteTarget = {
  name: "file-kind",
  parser: "kindOf, checkInitrd, checkIsRaw: what a file is",
  maxLength: 2048,
  seeds: HEADS.map((head) => Buffer.concat([Buffer.from(head, "latin1"), new Uint8Array(520)])),
  words: HEADS,
  run(input) {
    const source = new BytesImage(input, memory);
    allowing([KernelImageError], () => checkInitrd(source));
    for (const isReadonly of [true, false]) {
      allowing([DiskError], () => checkIsRaw("disk.img", source, isReadonly), /[\x00-\x1f\x7f]/);
    }
  },
};

export const partsTarget: ByteTarget = {
  name: "disk-parts",
  parser: "readPartsManifest: the list of a disk's parts",
  maxLength: 1024,
  seeds: [text('{"parts":[{"path":"a","bytes":4096},{"path":"/b","bytes":77}]}')],
  words: ['"parts"', '"path"', '"bytes"', "{", "}", "[", "]", ","],
  run(input) {
    allowing([DiskError], () => {
      for (const { path, bytes } of readPartsManifest("/x/list.json", input.length, input)) {
        assert.ok(bytes > 0 && path.startsWith("/") && !path.includes("\0"));
      }
    });
  },
};
