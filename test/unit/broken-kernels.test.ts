// Needs: nothing. Kernels with any byte of their headers broken, and advice about memory that is followed.
import assert from "node:assert/strict";
import type { GuestMemory } from "../../devices/contracts.js";
import { MAX_MEMORY_MIB } from "../../vmm/config/defaults.js";
import { KernelImageError } from "../../vmm/errors.js";
import { memoryRegions } from "../../vmm/memory/guest-memory.js";
import { writeBootParams } from "../../vmm/x86/boot-params.js";
import type { ImageSource } from "../../vmm/x86/image-source.js";
import { placeInitrd } from "../../vmm/x86/initrd.js";
import { loadKernel, type LoadedKernel } from "../../vmm/x86/kernel.js";
import { Random } from "../fuzz/random.js";
import { BytesImage, bzImage, elf } from "../helpers/bytes-image.js";
import { FakeMemory } from "../helpers/fake-memory.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Memory of any size with the machine's hole, of which nothing is ever touched. */
class UntouchedMemory extends FakeMemory {
  constructor(mib: number) {
    super(mib * MIB, 0);
  }

  override contains(gpa: number, length: number): boolean {
    return memoryRegions(0, this.size).some((region) => gpa >= region.gpa && gpa + length <= region.gpa + region.size);
  }
}

/** The file of `bytes`; what would be loaded is only checked to lie in the file and in RAM. */
function image(bytes: Uint8Array, memory: GuestMemory): ImageSource {
  return {
    path: "test.img",
    size: bytes.length,
    read: (offset, length) => bytes.slice(offset, offset + length),
    readInto: (offset, gpa, length) => {
      assert.ok(offset >= 0 && length >= 0 && offset + length <= bytes.length, "read outside the file");
      assert.ok(memory.contains(gpa, length), "loaded outside RAM");
    },
  };
}

/** Undefined if it is refused as it should be. */
function tryLoad(bytes: Uint8Array, memory: GuestMemory, protocol: "auto" | "linux64" = "auto") {
  try {
    return loadKernel(image(bytes, memory), memory, protocol);
  } catch (error) {
    assert.ok(error instanceof KernelImageError, String(error));
    assert.ok(error.message.length < 300 && !error.message.includes("\n"));
    return undefined;
  }
}

const CODE = Uint8Array.of(0xf4, 0xeb, 0xfd);
const elfKernel = () =>
  elf(
    16 * MIB,
    [
      { gpa: 16 * MIB, bytes: CODE, memorySize: 0x2000 },
      { gpa: 18 * MIB, bytes: CODE },
    ],
    16 * MIB + 1,
  );

function holds(kernel: LoadedKernel, memory: GuestMemory): void {
  assert.ok(memory.contains(kernel.entry, 1), "an entry outside RAM");
  assert.ok(kernel.end > kernel.entry && kernel.entry >= MIB);
}

describe("broken kernels", () => {
  const memory = new UntouchedMemory(64);

  for (const [name, good, headerBytes, protocol] of [
    ["ELF, 64-bit entry", elfKernel(), 64 + 3 * 56, "linux64"],
    ["ELF, PVH entry", elfKernel(), elfKernel().length, "auto"],
    ["bzImage", bzImage(), 0x290, "auto"],
  ] as const) {
    it(`${name}: every byte of the headers with every value is loaded or refused, and no header hangs`, () => {
      assert.ok(tryLoad(good, memory, protocol) !== undefined);
      for (let at = 0; at < headerBytes; at++) {
        for (const value of [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, ...bits((good[at] ?? 0) & 0xff)]) {
          const broken = good.slice();
          broken[at] = value;
          const kernel = tryLoad(broken, memory, protocol);
          if (kernel !== undefined) holds(kernel, memory);
        }
      }
    });

    it(`${name}: several bytes at once, fields of all ones, files cut anywhere`, () => {
      const random = new Random(7);
      for (let round = 0; round < 5000; round++) {
        const broken = good.slice();
        for (let count = 1 + random.below(4); count > 0; count--) {
          const at = random.below(headerBytes);
          broken.fill(random.oneIn(2) ? 0xff : random.below(256), at, at + (1 << random.below(4)));
        }
        const kernel = tryLoad(broken, memory, protocol);
        if (kernel !== undefined) holds(kernel, memory);
      }
      for (let length = 0; length <= headerBytes; length++) tryLoad(good.subarray(0, length), memory, protocol);
    });
  }

  const elfWith = (change: (data: DataView) => void): Uint8Array => {
    const bytes = elfKernel();
    change(new DataView(bytes.buffer));
    return bytes;
  };
  const bzWith = (change: (data: DataView) => void): Uint8Array => {
    const bytes = bzImage();
    change(new DataView(bytes.buffer));
    return bytes;
  };
  const refused: readonly (readonly [what: string, bytes: Uint8Array, message: RegExp])[] = [
    ["program headers inside the ELF header", elfWith((d) => d.setBigUint64(32, 8n, true)), /e_phoff/],
    ["an ELF header of another size", elfWith((d) => d.setUint16(52, 52, true)), /e_ehsize/],
    ["another ELF version", elfWith((d) => d.setUint32(20, 2, true)), /e_version 2/],
    ["another version of the identification", elfWith((d) => d.setUint8(6, 0)), /EI_VERSION 0/],
    ["an entry in a segment's zeroes", elf(16 * MIB + 64, [{ gpa: 16 * MIB, bytes: CODE, memorySize: MIB }]), /entry/],
    ["a PVH entry beyond 4 GiB", elf(16 * MIB, [{ gpa: 16 * MIB, bytes: CODE }], 5 * GIB), /entry/],
    ["syssize 0", bzImage({ syssize: 0 }), /0 bytes \(syssize\)/],
    ["a kernel that ends before its entry", bzImage({ syssize: 0x20 }), /512 bytes \(syssize\)/],
    ["no boot flag", bzWith((d) => d.setUint16(0x1fe, 0, true)), /boot_flag 0x0/],
    ["a zImage", bzWith((d) => d.setUint8(0x211, 0)), /zImage/],
    ["a header without init_size", bzWith((d) => d.setUint8(0x201, 0x20)), /setup header that ends at 0x222/],
    ["a header over the memory map", bzWith((d) => d.setUint8(0x201, 0xff)), /setup header that ends at 0x301/],
    ["a payload behind the kernel", bzWith((d) => d.setUint32(0x24c, 0x1001, true)), /payload_length/],
    ["no room for a command line", bzWith((d) => d.setUint32(0x238, 1, true)), /cmdline_size/],
    ["no alignment", bzWith((d) => d.setUint32(0x230, 0, true)), /kernel_alignment 0x0/],
    ["an odd alignment", bzWith((d) => d.setUint32(0x230, 0x30_0000, true)), /kernel_alignment 0x300000/],
  ];
  for (const [what, bytes, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => loadKernel(image(bytes, memory), memory, "auto"),
        (error) => error instanceof KernelImageError && message.test(error.message),
      );
    });
  }

  it("refuses an entry at the first byte that the page tables do not map", () => {
    const large = new UntouchedMemory(6 * 1024);
    assert.throws(
      () => loadKernel(image(elf(4 * GIB, [{ gpa: 4 * GIB, bytes: CODE }]), large), large, "auto"),
      /entry point 0x100000000 is not below 0x100000000/,
    );
  });

  it("a boot loader's fields are ours, whatever the file has in them", () => {
    const bytes = bzWith((d) => {
      for (const at of [0x218, 0x21c, 0x224, 0x23c, 0x240, 0x244, 0x250, 0x254]) d.setUint32(at, 0xdead_beef, true);
      d.setUint8(0x211, 0xff);
    });
    const ram = new FakeMemory(64 * MIB);
    const { setupHeader } = loadKernel(new BytesImage(bytes, ram), ram, "auto");
    writeBootParams(ram, { setupHeader, e820: [], initrd: undefined, rsdpGpa: 0xe0000 });
    const page = 0x7000;
    for (const at of [0x218, 0x21c, 0x224, 0x23c, 0x240, 0x244, 0x250, 0x254]) assert.equal(ram.readU32(page + at), 0);
    assert.equal(ram.readU8(page + 0x211), 1);
  });
});

/** `value` with each of its bits turned. */
function bits(value: number): number[] {
  return [0, 1, 2, 3, 4, 5, 6, 7].map((bit) => value ^ (1 << bit));
}

/** What the message advises, in `MiB`. */
function advised(error: KernelImageError): number | undefined {
  const match = /--memory (\d+)/.exec(error.cure ?? "");
  return match === null ? undefined : Number(match[1]);
}

function problemOf(action: () => unknown): KernelImageError | undefined {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof KernelImageError);
    return error;
  }
  return undefined;
}

describe("advice about memory helps, or is not given", () => {
  it("a segment anywhere: the advised size holds it, and without advice no size does", () => {
    const random = new Random(11);
    const edges = [MIB, 16 * MIB, GIB, 3 * GIB, 4 * GIB, 6 * GIB, 2 ** 40, 2 ** 50].flatMap((edge) =>
      [-0x2000, -1, 0, 1, 0x2000].map((offset) => edge + offset),
    );
    let helped = 0;
    for (let round = 0; round < 4000; round++) {
      const gpa = random.oneIn(2)
        ? (edges[random.below(edges.length)] ?? 0)
        : Math.floor(random.below(2 ** 20) * 2 ** random.below(24));
      const memorySize = 1 + random.below(4) * 0x1fff + (random.oneIn(4) ? random.below(2 ** 31) : 0);
      const bytes = elf(16 * MIB, [
        { gpa: 16 * MIB, bytes: CODE },
        { gpa, bytes: CODE, memorySize: memorySize + 3 },
      ]);
      const load = (mib: number) => () => {
        const memory = new UntouchedMemory(mib);
        return loadKernel(image(bytes, memory), memory, "auto");
      };
      const error = problemOf(load(32));
      if (error === undefined || !/RAM/.test(error.message)) continue;
      const mib = advised(error);
      const [size, isIn] = mib === undefined ? [MAX_MEMORY_MIB, false] : [mib, true];
      assert.ok(size <= MAX_MEMORY_MIB);
      assert.equal(new UntouchedMemory(size).contains(gpa, memorySize + 3), isIn, error.message);
      if (mib === undefined) continue;
      helped++;
      assert.equal(problemOf(load(mib)), undefined, error.message);
    }
    assert.ok(helped > 100);
  });

  it("a segment at 3 GiB, where devices are", () => {
    const bytes = elf(3 * GIB, [{ gpa: 3 * GIB, bytes: CODE }]);
    const memory = new UntouchedMemory(64);
    const error = problemOf(() => loadKernel(image(bytes, memory), memory, "auto"));
    assert.match(error?.message ?? "", /where no guest has RAM: RAM ends at 0xc0000000 and goes on at 0x100000000/);
    assert.equal(advised(error ?? new KernelImageError("")), undefined);
  });

  it("a bzImage of any size and address", () => {
    const random = new Random(13);
    let helped = 0;
    for (let round = 0; round < 1000; round++) {
      const bytes = bzImage({
        prefAddress: 0x20_0000 * (1 + random.below(2047)),
        initSize: 0x2000 + random.below(2 ** 32 - 0x2000),
      });
      const load = (mib: number) =>
        problemOf(() => loadKernel(image(bytes, new UntouchedMemory(mib)), new UntouchedMemory(mib), "auto"));
      const error = load(16);
      const mib = error === undefined ? undefined : advised(error);
      if (mib === undefined) assert.ok(error === undefined || load(MAX_MEMORY_MIB) !== undefined);
      else assert.equal(load(mib), undefined);
      if (mib !== undefined) helped++;
    }
    assert.ok(helped > 100, String(helped));
  });

  it("an initrd of any size beside a kernel of any size", () => {
    const random = new Random(17);
    let helped = 0;
    for (let round = 0; round < 20_000; round++) {
      const kernelEnd = MIB + random.below(random.oneIn(2) ? 64 * MIB : 2 ** 32 - 1);
      const size = 1 + random.below(random.oneIn(2) ? 300 * MIB : 2 ** 32 - 1);
      const addrMax = [0x7fff_ffff, 0xffff_ffff, 0x37ff_ffff, 0, random.below(2 ** 32)][random.below(5)] ?? 0;
      const place = (mib: number) => () => placeInitrd("i", size, mib * MIB, kernelEnd, addrMax);
      const error = problemOf(place(64));
      if (error === undefined) continue;
      const mib = advised(error);
      if (mib === undefined) {
        assert.ok(problemOf(place(MAX_MEMORY_MIB)) !== undefined, "more memory would help");
        assert.match(error.cure ?? "", /smaller/);
        continue;
      }
      helped++;
      assert.equal(problemOf(place(mib)), undefined, error.message);
      assert.ok(problemOf(place(mib - 1)) !== undefined, "less would do");
    }
    assert.ok(helped > 1000);
  });
});
