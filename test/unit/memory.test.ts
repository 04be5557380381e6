// Needs: nothing but mmap.
import assert from "node:assert/strict";
import { GuestMemoryError } from "../../vmm/errors.js";
import { E820_TYPE_RAM, E820_TYPE_RESERVED, e820Entries } from "../../vmm/memory/e820.js";
import { MappedGuestMemory, memoryRegions } from "../../vmm/memory/guest-memory.js";
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
