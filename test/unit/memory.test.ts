// Needs: nothing but mmap.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { GuestMemoryError, SystemCallError } from "../../vmm/errors.js";
import { E820_TYPE_RAM, E820_TYPE_RESERVED, e820Entries } from "../../vmm/memory/e820.js";
import { MappedGuestMemory, memoryRegions } from "../../vmm/memory/guest-memory.js";
import { WindowedMemory } from "../../vmm/memory/windowed-memory.js";
import { MappedGuestPages } from "../../vmm/virtio/backends/guest-pages.js";
import { skip } from "../helpers/skip.js";
import * as layout from "../../vmm/memory/layout.js";

const { GIB, MIB } = layout;

describe("layout", () => {
  it("boot data lies in ascending order without overlap, in RAM that E820 gives away or reserves", () => {
    const ranges: [name: string, start: number, length: number][] = [
      ["MP floating pointer", layout.MP_FLOATING_POINTER_GPA, 16],
      ["GDT", layout.BOOT_GDT_GPA, 0x40],
      ["IDT", layout.BOOT_IDT_GPA, 8],
      ["PVH start info", layout.PVH_START_INFO_GPA, 56],
      ["PVH modules", layout.PVH_MODLIST_GPA, 32],
      ["PVH memory map", layout.PVH_MEMMAP_GPA, 8 * 24],
      ["zero page", layout.BOOT_PARAMS_GPA, layout.PAGE_SIZE],
      ["stack", layout.BOOT_STACK_GPA - 0xff0, 0x1000],
      ["PML4", layout.BOOT_PML4_GPA, layout.PAGE_SIZE],
      ["PDPT", layout.BOOT_PDPT_GPA, layout.PAGE_SIZE],
      ["page directories", layout.BOOT_PD_GPA, 4 * layout.PAGE_SIZE],
      ["command line", layout.CMDLINE_GPA, layout.CMDLINE_CAPACITY],
      ["MP table", layout.MP_TABLE_GPA, layout.MP_TABLE_CAPACITY],
      ["ACPI", layout.ACPI_GPA, layout.ACPI_CAPACITY],
      ["high RAM", layout.HIGH_RAM_GPA, 1],
      ["MMIO hole", layout.MMIO_HOLE_GPA, GIB],
    ];
    for (const [i, [name, start]] of ranges.entries()) {
      const before = ranges[i - 1];
      if (before !== undefined) assert.ok(start >= before[1] + before[2], `${name} overlaps ${before[0]}`);
    }
  });

  it("every device window lies in the MMIO hole, and Intel's pages below 4 GiB", () => {
    for (const gpa of [layout.BOOT_TIMER_GPA, layout.VIRTIO_MMIO_GPA, layout.IO_APIC_GPA, layout.LOCAL_APIC_GPA]) {
      assert.ok(gpa >= layout.MMIO_HOLE_GPA && gpa < layout.HIGH_MEMORY_GPA);
    }
    assert.equal(layout.KVM_TSS_GPA, layout.KVM_IDENTITY_MAP_GPA + layout.PAGE_SIZE);
    assert.ok(layout.KVM_TSS_GPA + 3 * layout.PAGE_SIZE <= layout.HIGH_MEMORY_GPA);
  });
});

describe("e820", () => {
  it("128 MiB: low RAM, the reserved hole, high RAM", () => {
    assert.deepEqual(e820Entries(128 * MIB), [
      { gpa: 0, size: 0x9e000, type: E820_TYPE_RAM },
      { gpa: 0x9e000, size: 0x62000, type: E820_TYPE_RESERVED },
      { gpa: 0x100000, size: 127 * MIB, type: E820_TYPE_RAM },
    ]);
  });

  it("5 GiB: RAM above 3 GiB goes on above 4 GiB, and nothing is lost", () => {
    const entries = e820Entries(5 * GIB);
    assert.deepEqual(entries.at(-1), { gpa: 4 * GIB, size: 2 * GIB, type: E820_TYPE_RAM });
    assert.equal(
      entries.reduce((sum, { size }) => sum + size, 0),
      5 * GIB,
    );
    assert.deepEqual(memoryRegions(0x1000, 5 * GIB), [
      { gpa: 0, size: 3 * GIB, hva: 0x1000 },
      { gpa: 4 * GIB, size: 2 * GIB, hva: 0x1000 + 3 * GIB },
    ]);
    assert.equal(e820Entries(3 * GIB).length, 3);
  });
});

describe("guest-memory", () => {
  const memory = MappedGuestMemory.map(6 * GIB);
  after(() => memory.unmap());

  it("reads what was written, little-endian, on both sides of the hole", () => {
    for (const gpa of [0, 0x1234, 3 * GIB - 8, 4 * GIB, 7 * GIB - 8]) {
      memory.writeU64(gpa, 0x1122334455667788n);
      assert.equal(memory.readU64(gpa), 0x1122334455667788n);
      assert.equal(memory.readU32(gpa), 0x55667788);
      assert.equal(memory.readU16(gpa + 6), 0x1122);
      assert.equal(memory.readU8(gpa), 0x88);
      assert.deepEqual([...memory.slice(gpa, 2)], [0x88, 0x77]);
    }
  });

  const outside: [gpa: number, length: number][] = [
    [-1, 1],
    [3 * GIB - 1, 2],
    [3 * GIB, 1],
    [4 * GIB - 1, 1],
    [7 * GIB, 1],
    [7 * GIB - 1, 2],
    [2 ** 53, 1],
    [NaN, 1],
    [0, -1],
    [Infinity, 1],
  ];
  for (const [gpa, length] of outside) {
    it(`refuses ${String(length)} bytes at ${String(gpa)}`, () => {
      assert.equal(memory.contains(gpa, length), false);
      assert.throws(() => memory.slice(gpa, length), GuestMemoryError);
      assert.throws(() => memory.hostAddressOf(gpa, length), GuestMemoryError);
    });
  }

  it("an access over the end of a region throws for every width", () => {
    for (const end of [3 * GIB, 7 * GIB]) {
      assert.throws(() => memory.readU8(end), GuestMemoryError);
      assert.throws(() => memory.readU16(end - 1), GuestMemoryError);
      assert.throws(() => memory.readU32(end - 3), GuestMemoryError);
      assert.throws(() => memory.readU64(end - 7), GuestMemoryError);
      assert.throws(() => memory.writeU8(end, 0), GuestMemoryError);
      assert.throws(() => memory.writeU16(end - 1, 0), GuestMemoryError);
      assert.throws(() => memory.writeU32(end - 3, 0), GuestMemoryError);
      assert.throws(() => memory.writeU64(end - 7, 0n), GuestMemoryError);
    }
  });

  it("host addresses follow the regions", () => {
    assert.equal(memory.hostAddressOf(0x1234, 16), memory.hostAddress + 0x1234);
    assert.equal(memory.hostAddressOf(3 * GIB - 1, 1), memory.hostAddress + 3 * GIB - 1);
    assert.equal(memory.hostAddressOf(7 * GIB, 0), memory.hostAddress + 6 * GIB, "no bytes, at the end");
    assert.throws(() => memory.hostAddressOf(4096, -1), GuestMemoryError);
    assert.equal(memory.hostAddressOf(4 * GIB, 3 * GIB), memory.hostAddress + 3 * GIB);
    assert.equal(memory.hostAddressOf(7 * GIB - 1, 1), memory.hostAddress + 6 * GIB - 1);
  });

  it("atomic halves agree with plain ones, and want an even address in RAM", () => {
    for (const gpa of [0x2000, 3 * GIB - 2, 4 * GIB, 7 * GIB - 2]) {
      memory.storeU16(gpa, 0xfedc);
      assert.equal(memory.readU16(gpa), 0xfedc);
      memory.writeU16(gpa, 0x1234);
      assert.equal(memory.loadU16(gpa), 0x1234);
    }
    for (const gpa of [0x2001, -2, 3 * GIB, 7 * GIB, NaN]) {
      assert.throws(() => memory.loadU16(gpa), GuestMemoryError);
      assert.throws(() => memory.storeU16(gpa, 0), GuestMemoryError);
    }
  });

  it("a second attachment sees the same bytes", () => {
    const other = MappedGuestMemory.attach(memory.hostAddress, memory.size);
    memory.writeU32(0x5000, 0xdeadbeef);
    assert.equal(other.readU32(0x5000), 0xdeadbeef);
  });
});

describe("guest-memory: large guests", () => {
  // Views end 4 GiB after they begin, whether or not the next one overlaps: at 8 GiB of the guest for sure.
  const memory = MappedGuestMemory.map(20 * GIB);
  after(() => memory.unmap());
  const seams = [8 * GIB, 8 * GIB - layout.PAGE_SIZE, 12 * GIB, 12 * GIB - 2 * layout.PAGE_SIZE, 16 * GIB, 20 * GIB];

  it("numbers of every width are read and written across the ends of views", () => {
    for (const seam of seams) {
      for (let gpa = seam - 8; gpa <= seam; gpa++) {
        memory.slice(seam - 16, 32).fill(0);
        memory.writeU64(gpa, 0x1122334455667788n);
        assert.equal(memory.readU64(gpa), 0x1122334455667788n);
        const bytes = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
        assert.deepEqual([...memory.slice(gpa, 8)], bytes);
        assert.deepEqual(
          bytes.map((_, index) => memory.readU8(gpa + index)),
          bytes,
        );
        assert.equal(memory.readU32(gpa), 0x55667788);
        memory.writeU32(gpa, 0x01020304);
        memory.writeU16(gpa + 4, 0x0506);
        memory.writeU8(gpa + 6, 7);
        assert.equal(memory.readU64(gpa), 0x1107050601020304n);
        assert.equal(memory.readU16(gpa + 3), 0x0601);
      }
    }
  });

  it("atomic accesses reach every half word up to the last one of RAM", () => {
    for (const gpa of [4 * GIB, 21 * GIB - 2, ...seams.flatMap((seam) => [seam - 2, seam])]) {
      memory.writeU32(gpa - (gpa === 4 * GIB ? 0 : 2), 0);
      memory.storeU16(gpa, 0x1200);
      memory.orU16(gpa, 0x0034);
      assert.equal(memory.loadU16(gpa), 0x1234);
      assert.equal(memory.readU16(gpa), 0x1234);
    }
  });

  it("a slice across the end of a view is guest memory, not a copy", () => {
    for (const seam of seams) {
      const length = 3 * layout.PAGE_SIZE;
      const slice = memory.slice(seam - length / 2, length);
      slice.fill(0xa5);
      assert.deepEqual([memory.readU8(seam - length / 2), memory.readU8(seam + length / 2 - 1)], [0xa5, 0xa5]);
      memory.writeU8(seam, 0x5a);
      assert.equal(slice[length / 2], 0x5a);
    }
    assert.equal(memory.slice(4 * GIB, 2 ** 32 - 1).length, 2 ** 32 - 1);
    assert.equal(memory.slice(5 * GIB, 2 ** 32 - 1).length, 2 ** 32 - 1);
  });

  it("nothing is contiguous over the MMIO hole, although the host's addresses are", () => {
    assert.equal(memory.contains(3 * GIB - 4, 4), true);
    assert.equal(memory.contains(3 * GIB - 4, 8), false);
    assert.equal(memory.contains(4 * GIB - 4, 8), false);
    assert.equal(memory.contains(3 * GIB - 4, GIB + 8), false);
    for (const gpa of [3 * GIB - 4, 4 * GIB - 4]) {
      assert.throws(() => memory.readU64(gpa), GuestMemoryError);
      assert.throws(() => memory.slice(gpa, 8), GuestMemoryError);
      assert.throws(() => memory.hostAddressOf(gpa, 8), GuestMemoryError);
    }
  });

  it("sizes whose views end exactly at a region's end, and odd ones", () => {
    for (const size of [MIB, 3 * GIB, 7 * GIB, 7 * GIB - layout.PAGE_SIZE, 7 * GIB + 1, 11 * GIB + 3]) {
      const odd = MappedGuestMemory.map(size);
      for (const { gpa, size: length } of odd.regions) {
        for (const at of [gpa, gpa + length - 1]) {
          odd.writeU8(at, 0x77);
          assert.equal(odd.readU8(at), 0x77, `${String(at)} of ${String(size)}`);
        }
        const last = gpa + length - 2 - (length % 2);
        odd.storeU16(last, 0xabcd);
        assert.equal(odd.loadU16(last), 0xabcd);
        assert.throws(() => odd.readU8(gpa + length), GuestMemoryError);
      }
      odd.unmap();
    }
  });

  it("1 TiB: its last byte and both sides of every view's end are there", () => {
    const huge = MappedGuestMemory.map(1024 * GIB);
    for (let gpa = 4 * GIB; gpa <= 1024 * GIB; gpa += 64 * GIB) {
      assert.equal(huge.readU64(gpa + 4 * GIB - 4), 0n);
      assert.equal(huge.loadU16(gpa + 4 * GIB), 0);
    }
    assert.equal(huge.readU64(1025 * GIB - 8), 0n);
    assert.throws(() => huge.readU64(1025 * GIB - 7), GuestMemoryError);
    huge.unmap();
  });
});

describe("windowed memory", () => {
  it("agrees with an array, whatever the ends of views and regions cut", () => {
    const ram = new Uint8Array(0x1000);
    const ranges = [
      { gpa: 0, size: 0x600 },
      { gpa: 0x800, size: 0xa00 },
    ];
    const views: number[] = [];
    const memory = new WindowedMemory(
      ranges,
      (offset, length) => {
        views.push(length);
        return ram.subarray(offset, offset + length);
      },
      { viewBytes: 0x110, overlapBytes: 0x10, firstViewBytes: 0x20 },
    );
    assert.equal(memory.size, 0x1000);
    assert.deepEqual(views, [0x20]);
    for (const { gpa: start, size } of ranges) {
      for (let gpa = start; gpa < start + size; gpa++) {
        const offset = start === 0 ? gpa : gpa - 0x200;
        memory.writeU8(gpa, gpa * 7);
        assert.equal(ram[offset], (gpa * 7) & 0xff);
        if (gpa + 8 > start + size) continue;
        assert.equal(memory.contains(gpa, 8), true);
        memory.writeU64(gpa, BigInt(gpa) * 0x0101_0101n);
        assert.equal(new DataView(ram.buffer).getBigUint64(offset, true), BigInt(gpa) * 0x0101_0101n);
        assert.equal(memory.readU64(gpa), BigInt(gpa) * 0x0101_0101n);
      }
    }
    const four = new Uint32Array(4);
    for (const { gpa: start, size } of ranges) {
      for (let gpa = start; gpa + 16 <= start + size; gpa++) {
        memory.read4U32(gpa, four);
        assert.deepEqual(
          [...four],
          [0, 4, 8, 12].map((offset) => memory.readU32(gpa + offset)),
        );
      }
      assert.throws(() => {
        memory.read4U32(start + size - 15, four);
      }, GuestMemoryError);
    }
    // A view each 0x100 bytes and the small first one: made once, kept, never longer than asked for.
    assert.equal(views.length, 1 + 6 + 10);
    assert.ok(Math.max(...views) <= 0x110);
    for (const gpa of [-1, 0x5f9, 0x600, 0x7ff, 0x11f9, 0x1200, NaN, Infinity]) {
      assert.equal(memory.contains(gpa, 8), false);
      assert.throws(() => memory.readU64(gpa), GuestMemoryError);
      assert.throws(() => memory.slice(gpa, 8), GuestMemoryError);
    }
    assert.equal(views.length, 17);
    assert.throws(() => memory.slice(0, -1), GuestMemoryError);
    assert.throws(() => new WindowedMemory([], () => ram, { viewBytes: 16, overlapBytes: 8 }), GuestMemoryError);
  });
});

describe("guest memory in huge pages", () => {
  function freePages(): number {
    return Number(readFileSync("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "latin1"));
  }

  it("takes those that the host keeps, gives them back, and is refused where there are too few", function () {
    if (!existsSync("/sys/kernel/mm/hugepages/hugepages-2048kB")) skip(this, "this host has no pages of 2 MiB");
    const free = freePages();
    assert.throws(
      () => MappedGuestMemory.mapHugePages((free + 1) * 2 * MIB),
      (error) => error instanceof SystemCallError && error.errnoName === "ENOMEM",
    );
    if (free < 2) return;
    const memory = MappedGuestMemory.mapHugePages(4 * MIB);
    memory.writeU32(3 * MIB, 0x1234_5678);
    assert.deepEqual([memory.readU32(3 * MIB), memory.hostAddress % (2 * MIB)], [0x1234_5678, 0]);
    assert.equal(new MappedGuestPages(memory).release(2 * MIB, 2 * MIB), 0);
    assert.equal(memory.readU32(3 * MIB), 0);
    memory.unmap();
    assert.equal(freePages(), free);
  });
});
