// Needs: nothing. Boot formats against hand-made bytes, good and bad.
import assert from "node:assert/strict";
import { KernelImageError } from "../../vmm/errors.js";
import { loadKernel } from "../../vmm/x86/kernel.js";
import { placeInitrd } from "../../vmm/x86/initrd.js";
import { BytesImage, bzImage, elf } from "../helpers/bytes-image.js";
import { FakeMemory } from "../helpers/fake-memory.js";

const MIB = 2 ** 20;

function load(bytes: Uint8Array, protocol: "auto" | "linux64" | "pvh" = "auto", mib = 32) {
  const memory = new FakeMemory(mib * MIB);
  return { kernel: loadKernel(new BytesImage(bytes, memory), memory, protocol), memory };
}

const CODE = Uint8Array.of(0xf4, 0xeb, 0xfd);
const good = () => elf(16 * MIB, [{ gpa: 16 * MIB, bytes: CODE, memorySize: 0x2000 }], 16 * MIB + 1);

describe("elf", () => {
  it("loads segments at their physical addresses; the PVH note wins unless linux64 is asked for", () => {
    const { kernel, memory } = load(good());
    assert.equal(kernel.format, "elf-pvh");
    assert.equal(kernel.entry, 16 * MIB + 1);
    assert.equal(kernel.end, 16 * MIB + 0x2000);
    assert.deepEqual(memory.slice(16 * MIB, 3), CODE);
    const plain = load(good(), "linux64").kernel;
    assert.deepEqual([plain.format, plain.entry], ["elf-linux64", 16 * MIB]);
  });

  it("a segment may begin where the one before ends", () => {
    const touching = [
      { gpa: 16 * MIB, bytes: CODE, memorySize: 0x1000 },
      { gpa: 16 * MIB + 0x1000, bytes: CODE },
    ];
    assert.equal(load(elf(16 * MIB, touching)).kernel.end, 16 * MIB + 0x1003);
  });

  const header = (change: (data: DataView) => void): Uint8Array => {
    const image = good();
    change(new DataView(image.buffer));
    return image;
  };
  const bad: [what: string, image: Uint8Array, message: RegExp][] = [
    ["an empty file", new Uint8Array(), /empty/],
    ["a file of three bytes", Uint8Array.of(0x7f, 0x45, 0x4c), /neither an ELF file nor a bzImage/],
    ["text", Buffer.from("#!/bin/sh\necho not a kernel\n"), /a script, not a kernel/],
    ["a cut ELF header", good().subarray(0, 40), /too few for an ELF header/],
    ["the 32-bit class", header((d) => d.setUint8(4, 1)), /class 1.*needed is 2/],
    ["the other endianness", header((d) => d.setUint8(5, 2)), /endian|data encoding|ELF data/i],
    ["another machine", header((d) => d.setUint16(18, 183, true)), /machine 183/],
    ["a relocatable file", header((d) => d.setUint16(16, 1, true)), /type 1/],
    ["program headers behind the file's end", header((d) => d.setBigUint64(32, 1n << 40n, true)), /program header/i],
    ["an offset beyond 2^53", header((d) => d.setBigUint64(32, 1n << 60n, true)), /2\^53/],
    ["a segment behind the file's end", elf(16 * MIB, [{ gpa: 16 * MIB, bytes: CODE, offset: 4096 }]), /segment|file/],
    ["a segment outside RAM", elf(64 * MIB, [{ gpa: 64 * MIB, bytes: CODE }]), /outside the guest's 32 MiB/],
    ["a segment below 1 MiB", elf(0x8000, [{ gpa: 0x8000, bytes: CODE }]), /below 1 MiB/],
    ["an entry in no segment", elf(17 * MIB, [{ gpa: 16 * MIB, bytes: CODE }]), /entry point .* in no segment/],
    [
      "overlapping segments",
      elf(16 * MIB, [
        { gpa: 16 * MIB, bytes: CODE, memorySize: 0x2000 },
        { gpa: 16 * MIB + 0x1000, bytes: CODE },
      ]),
      /overlap/,
    ],
    [
      "more in the file than in memory",
      elf(16 * MIB, [{ gpa: 16 * MIB, bytes: CODE, memorySize: 1 }]),
      /segment|memory/,
    ],
    ["no segment at all", elf(16 * MIB, []), /0 program headers/],
  ];
  for (const [what, image, message] of bad) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => load(image),
        (error) => error instanceof KernelImageError && message.test(error.message),
      );
    });
  }

  it("refuses PVH where there is no note", () => {
    assert.throws(() => load(elf(16 * MIB, [{ gpa: 16 * MIB, bytes: CODE }]), "pvh"), /no PVH note/);
  });
});

describe("bzimage", () => {
  it("loads the kernel at its preferred address and enters 0x200 behind it", () => {
    const { kernel, memory } = load(bzImage());
    assert.deepEqual([kernel.format, kernel.entry], ["bzimage", 16 * MIB + 0x200]);
    assert.equal(kernel.end, 16 * MIB + 0x2000);
    assert.equal(kernel.cmdlineMax, 2047);
    assert.equal(memory.readU8(16 * MIB), 0x90);
    assert.equal(kernel.setupHeader?.[0], 2);
  });

  it("a last paragraph without its padding is whole", () => {
    const { kernel, memory } = load(bzImage().subarray(0, -15));
    assert.equal(kernel.end, 16 * MIB + 0x2000);
    assert.deepEqual([...memory.slice(16 * MIB + 4080, 2)], [0x90, 0]);
  });

  const bad: [what: string, image: Uint8Array, message: RegExp][] = [
    ["an old protocol", bzImage({ version: 0x20b }), /boot protocol 2\.11 is too old, needed is 2\.12/],
    ["a kernel without 64-bit entry", bzImage({ xloadflags: 0 }), /no 64-bit entry/],
    ["a truncated file", bzImage({ syssize: 0x10000 }), /truncated/],
    ["a file that ends in its setup header", bzImage().subarray(0, 0x267), /615 bytes are too few/],
    ["a file that ends with its setup header", bzImage().subarray(0, 0x268), /truncated: .* has 0$/],
    ["a last paragraph that is missing", bzImage().subarray(0, -16), /truncated: .* 4096 bytes, the file has 4080/],
    ["a preferred address below 1 MiB", bzImage({ prefAddress: 0x10000 }), /preferred address/],
    ["more memory than the guest has", bzImage({ initSize: 64 * MIB }), /outside the guest's 32 MiB/],
  ];
  for (const [what, image, message] of bad) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => load(image),
        (error) => error instanceof KernelImageError && message.test(error.message),
      );
    });
  }
});

describe("initrd", () => {
  it("lies at the top of RAM, page-aligned, below the kernel's limit", () => {
    assert.deepEqual(placeInitrd("i", 5000, 64 * MIB, 20 * MIB, 0x7fff_ffff), { gpa: 64 * MIB - 8192, size: 5000 });
    assert.equal(placeInitrd("i", 4096, 8192 * MIB, 20 * MIB, 0x7fff_ffff).gpa, 2 ** 31 - 4096);
    assert.equal(placeInitrd("i", 4096, 8192 * MIB, 20 * MIB, 0xffff_ffff).gpa, 0xc000_0000 - 4096);
  });

  it("one larger than what is left beside the kernel names both sizes and a cure", () => {
    assert.throws(
      () => placeInitrd("big.cpio", 50 * MIB, 64 * MIB, 20 * MIB, 0x7fff_ffff),
      (error) =>
        error instanceof KernelImageError &&
        error.message.includes(String(50 * MIB)) &&
        error.message.includes(String(44 * MIB)) &&
        error.cure?.includes("--memory") === true,
    );
  });

  it("more memory is the cure up to the last byte that the kernel's limit allows", () => {
    const cureOf = (size: number): string => {
      try {
        placeInitrd("big.cpio", size, 64 * MIB, 20 * MIB, 128 * MIB - 1);
      } catch (error) {
        if (error instanceof KernelImageError) return error.cure ?? "";
      }
      assert.fail(`${String(size)} bytes fit`);
    };
    assert.match(cureOf(108 * MIB), /--memory 128 at least/);
    assert.match(cureOf(108 * MIB + 1), /make it smaller/);
    assert.equal(placeInitrd("big.cpio", 108 * MIB, 128 * MIB, 20 * MIB, 128 * MIB - 1).gpa, 20 * MIB);
  });
});
