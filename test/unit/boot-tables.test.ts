// Needs: nothing. Tables for the kernel, read back as a kernel would.
import assert from "node:assert/strict";
import { MAX_CPUS } from "../../vmm/config/defaults.js";
import { ConfigError } from "../../vmm/errors.js";
import { E820_TYPE_RESERVED, e820Entries } from "../../vmm/memory/e820.js";
import * as layout from "../../vmm/memory/layout.js";
import { writeAcpiTables } from "../../vmm/x86/acpi/tables.js";
import {
  addressSpace,
  busNumbers,
  device,
  eisaId,
  integer,
  interrupt,
  ioPorts,
  isaIrq,
  memory32,
  method,
  named,
  notify,
  pack,
  resources,
  scope,
  text,
} from "../../vmm/x86/acpi/aml.js";
import { boot_params, setup_header, writeBootParams } from "../../vmm/x86/boot-params.js";
import { checkCmdline, writeCmdline } from "../../vmm/x86/cmdline.js";
import { mpFloatingPointer, mpTable, writeMpTable } from "../../vmm/x86/mptable.js";
import { pciHostBridge } from "../../vmm/x86/pci-host-bridge.js";
import { writePageTables } from "../../vmm/x86/page-tables.js";
import { hvm_start_info, writeStartInfo } from "../../vmm/x86/pvh.js";
import { FakeMemory } from "../helpers/fake-memory.js";

const { GIB, MIB } = layout;
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
const ascii = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

describe("boot-params", () => {
  const e820 = e820Entries(128 * MIB);

  it("the zero page says where command line, initrd, memory and ACPI are", () => {
    const memory = new FakeMemory(2 * MIB);
    writeBootParams(memory, { setupHeader: undefined, e820, initrd: { gpa: 0x123000, size: 99 }, rsdpGpa: 0xe0000 });
    const at = layout.BOOT_PARAMS_GPA;
    assert.equal(memory.readU32(at + setup_header.header), 0x53726448);
    assert.equal(memory.readU16(at + setup_header.boot_flag), 0xaa55);
    assert.equal(memory.readU8(at + setup_header.type_of_loader), 0xff);
    assert.equal(memory.readU32(at + setup_header.cmd_line_ptr), layout.CMDLINE_GPA);
    assert.equal(memory.readU32(at + setup_header.ramdisk_image), 0x123000);
    assert.equal(memory.readU32(at + setup_header.ramdisk_size), 99);
    assert.equal(memory.readU64(at + boot_params.acpi_rsdp_addr), 0xe0000n);
    assert.equal(memory.readU8(at + boot_params.e820_entries), 3);
    assert.equal(memory.readU64(at + boot_params.e820_table + 40), 0x100000n);
    assert.equal(memory.readU64(at + boot_params.e820_table + 48), BigInt(127 * MIB));
    assert.equal(memory.readU32(at + boot_params.e820_table + 56), 1);
  });

  it("a bzImage's own header is kept, but for what the loader must set", () => {
    const memory = new FakeMemory(2 * MIB);
    const header = new Uint8Array(0x7b);
    header[setup_header.version - boot_params.hdr] = 0x0f;
    header[setup_header.xloadflags - boot_params.hdr] = 0x7f;
    writeBootParams(memory, { setupHeader: header, e820, initrd: undefined, rsdpGpa: 0xe0000 });
    const at = layout.BOOT_PARAMS_GPA;
    assert.equal(memory.readU8(at + setup_header.version), 0x0f);
    assert.equal(memory.readU8(at + setup_header.xloadflags), 0x7f);
    assert.equal(memory.readU8(at + setup_header.loadflags) & 1, 1);
    assert.equal(memory.readU32(at + setup_header.ramdisk_size), 0);
  });
});

describe("pvh", () => {
  it("hvm_start_info links command line, module, memory map and RSDP", () => {
    const memory = new FakeMemory(2 * MIB);
    writeStartInfo(memory, { e820: e820Entries(64 * MIB), initrd: { gpa: 0x200000, size: 7 }, rsdpGpa: 0xe0000 });
    const at = layout.PVH_START_INFO_GPA;
    assert.equal(memory.readU32(at + hvm_start_info.magic), 0x336ec578);
    assert.equal(memory.readU32(at + hvm_start_info.version), 1);
    assert.equal(memory.readU64(at + hvm_start_info.cmdline_paddr), BigInt(layout.CMDLINE_GPA));
    assert.equal(memory.readU64(at + hvm_start_info.rsdp_paddr), 0xe0000n);
    assert.equal(memory.readU32(at + hvm_start_info.memmap_entries), 3);
    const module = Number(memory.readU64(at + hvm_start_info.modlist_paddr));
    assert.deepEqual([memory.readU64(module), memory.readU64(module + 8)], [0x200000n, 7n]);
  });
});

describe("mptable", () => {
  it("the floating pointer and the table add up to zero, one entry a processor", () => {
    const memory = new FakeMemory(2 * MIB);
    writeMpTable(memory, 3, false);
    const pointer = memory.slice(layout.MP_FLOATING_POINTER_GPA, 16);
    assert.equal(ascii(pointer.subarray(0, 4)), "_MP_");
    assert.equal(sum(pointer), 0);
    const at = memory.readU32(layout.MP_FLOATING_POINTER_GPA + 4);
    assert.equal(ascii(memory.slice(at, 4)), "PCMP");
    assert.equal(sum(memory.slice(at, memory.readU16(at + 4))), 0);
    assert.equal(memory.readU32(at + 36), layout.LOCAL_APIC_GPA);
    const processors = [0, 1, 2].map((i) => memory.slice(at + 44 + 20 * i, 20));
    assert.deepEqual(
      processors.map((entry) => [entry[0], entry[1], entry[3]]),
      [
        [0, 0, 3],
        [0, 1, 1],
        [0, 2, 1],
      ],
    );
  });

  it("after the processors: the ISA bus, the I/O APIC, an interrupt a pin, and the local pins", () => {
    const table = mpTable(2, false);
    const data = new DataView(table.buffer);
    assert.equal(data.getUint16(4, true), table.length);
    assert.deepEqual([...table.subarray(44, 64)], [0, 0, 0x14, 3, 0, 6, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const rest = table.subarray(44 + 2 * 20);
    assert.equal(ascii(rest.subarray(0, 8)), "\x01\0ISA   ");
    const apic = [2, 2, 0x11, 1, 0, 0, 0xc0, 0xfe];
    assert.deepEqual([...rest.subarray(8, 16)], apic);
    for (let pin = 0; pin < 24; pin++) {
      const entry = rest.subarray(16 + 8 * pin, 24 + 8 * pin);
      assert.deepEqual([...entry], [3, 0, 0, 0, 0, pin, 2, pin]);
    }
    assert.deepEqual([...rest.subarray(16 + 8 * 24)], [4, 3, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0xff, 1]);
    assert.equal(data.getUint16(34, true), 2 + 1 + 1 + 24 + 2);
    assert.deepEqual([...mpFloatingPointer(0x9_e000).subarray(4, 10)], [0, 0xe0, 9, 0, 1, 4]);
  });

  it("with a PCI bus: that bus first, because Linux takes its number for the bus's own, and a line for the first pin of each device", () => {
    const table = mpTable(1, true);
    const rest = table.subarray(44 + 20);
    assert.equal(ascii(rest.subarray(0, 16)), "\x01\0PCI   \x01\x01ISA   ");
    const interrupts = Array.from({ length: 16 + 31 }, (_, index) => [
      ...rest.subarray(24 + 8 * index, 32 + 8 * index),
    ]);
    assert.deepEqual(interrupts[15], [3, 0, 0, 0, 1, 15, 1, 15]);
    assert.deepEqual(interrupts[16], [3, 0, 0, 0, 0, 4 * 1, 1, 17]);
    assert.deepEqual(interrupts[16 + 30], [3, 0, 0, 0, 0, 4 * 31, 1, 23]);
    assert.deepEqual([...rest.subarray(24 + 8 * 47)], [4, 3, 0, 0, 1, 0, 0, 0, 4, 1, 0, 0, 1, 0, 0xff, 1]);
  });

  it("the largest number of processors still fits", () => {
    const memory = new FakeMemory(2 * MIB);
    writeMpTable(memory, MAX_CPUS, true);
    const at = memory.readU32(layout.MP_FLOATING_POINTER_GPA + 4);
    const size = memory.readU16(at + 4);
    assert.ok(at >= layout.EBDA_GPA && at + size <= layout.LEGACY_HOLE_GPA, `${String(size)} bytes at ${String(at)}`);
    assert.equal(sum(memory.slice(at, size)), 0);
    const last = memory.slice(at + 44 + 20 * (MAX_CPUS - 1), 4);
    assert.deepEqual([last[0], last[1], last[3]], [0, MAX_CPUS - 1, 1]);
  });
});

describe("acpi", () => {
  const memory = new FakeMemory(2 * MIB);
  const rsdp = writeAcpiTables(memory, { cpus: 4, virtio: [{ gpa: 0xc0001000, length: 4096, gsi: 5 }] });
  const table = (gpa: number): Uint8Array => memory.slice(gpa, memory.readU32(gpa + 4));

  it("RSDP, XSDT, FADT, MADT and DSDT are linked, and every checksum is right", () => {
    assert.equal(ascii(memory.slice(rsdp, 8)), "RSD PTR ");
    assert.equal(sum(memory.slice(rsdp, 20)), 0);
    assert.equal(sum(memory.slice(rsdp, 36)), 0);
    const xsdt = Number(memory.readU64(rsdp + 24));
    assert.equal(ascii(memory.slice(xsdt, 4)), "XSDT");
    const fadt = Number(memory.readU64(xsdt + 36));
    const madt = Number(memory.readU64(xsdt + 44));
    const dsdt = Number(memory.readU64(fadt + 140));
    assert.deepEqual(
      [xsdt, fadt, madt, dsdt].map((gpa) => [ascii(memory.slice(gpa, 4)), sum(table(gpa))]),
      [
        ["XSDT", 0],
        ["FACP", 0],
        ["APIC", 0],
        ["DSDT", 0],
      ],
    );
    assert.equal(memory.readU32(fadt + 40), dsdt);
    assert.equal(memory.readU32(fadt + 36) % 64, 0, "FACS is aligned");
    assert.equal(ascii(memory.slice(memory.readU32(fadt + 36), 4)), "FACS");
    assert.equal(memory.readU32(fadt + 64), layout.ACPI_PM1A_CNT_PORT);
  });

  it("the MADT lists every processor and the I/O APIC", () => {
    const madt = table(Number(memory.readU64(Number(memory.readU64(rsdp + 24)) + 44)));
    const entries: number[][] = [];
    for (let at = 44; at < madt.length; at += madt[at + 1] ?? 255) {
      entries.push([...madt.subarray(at, at + (madt[at + 1] ?? 0))]);
    }
    assert.deepEqual(
      entries.filter(([type]) => type === 0).map((entry) => entry[3]),
      [0, 1, 2, 3],
    );
    const ioApic = entries.find(([type]) => type === 1) ?? [];
    assert.equal(Buffer.from(ioApic).readUInt32LE(4), layout.IO_APIC_GPA);
  });

  it("the FADT says what the machine has, by the offsets of ACPI 6.4 table 5.9", () => {
    const fadt = Number(memory.readU64(Number(memory.readU64(rsdp + 24)) + 36));
    const u8 = (at: number): number => memory.readU8(fadt + at);
    assert.deepEqual([memory.readU32(fadt + 4), u8(8), u8(131)], [276, 6, 4]);
    assert.equal(memory.readU16(fadt + 46), layout.ACPI_SCI_GSI);
    assert.equal(memory.readU32(fadt + 48), 0, "no SMI command: always in ACPI mode");
    assert.deepEqual(
      [56, 64, 76, 80].map((at) => memory.readU32(fadt + at)),
      [layout.ACPI_PM1A_EVT_PORT, layout.ACPI_PM1A_CNT_PORT, layout.ACPI_PM_TIMER_PORT, layout.ACPI_GPE0_PORT],
    );
    assert.deepEqual([88, 89, 91, 92].map(u8), [4, 2, 4, 2]);
    assert.deepEqual([memory.readU16(fadt + 96), memory.readU16(fadt + 98)], [0xffff, 0xffff]);
    // No keyboard controller to wait for, no VGA; ISA devices.
    assert.equal(memory.readU16(fadt + 109), 0b101);
    const flags = memory.readU32(fadt + 112);
    const has = (bit: number): boolean => ((flags >>> bit) & 1) === 1;
    assert.deepEqual([0, 2, 4, 5, 8, 10, 12].map(has), [true, true, true, true, true, true, true]);
    assert.deepEqual([1, 3, 7, 9, 11, 13, 20].map(has), [false, false, false, false, false, false, false]);
    const register = (at: number): number[] => [u8(at), u8(at + 1), u8(at + 3), Number(memory.readU64(fadt + at + 4))];
    assert.deepEqual(register(116), [1, 8, 1, layout.ACPI_RESET_PORT]);
    assert.equal(u8(128), 1);
    assert.deepEqual(register(148), [1, 32, 2, layout.ACPI_PM1A_EVT_PORT]);
    assert.deepEqual(register(172), [1, 16, 2, layout.ACPI_PM1A_CNT_PORT]);
    assert.deepEqual(register(208), [1, 32, 3, layout.ACPI_PM_TIMER_PORT]);
    assert.deepEqual(register(220), [1, 16, 1, layout.ACPI_GPE0_PORT]);
  });

  it("the MADT has the I/O APIC behind the processors, a level-triggered SCI, and NMIs at LINT1", () => {
    const madt = table(Number(memory.readU64(Number(memory.readU64(rsdp + 24)) + 44)));
    const data = new DataView(madt.buffer, madt.byteOffset);
    assert.deepEqual([data.getUint32(36, true), data.getUint32(40, true)], [layout.LOCAL_APIC_GPA, 1]);
    assert.deepEqual([...madt.subarray(44, 52)], [0, 8, 0, 0, 1, 0, 0, 0]);
    const rest = madt.subarray(44 + 4 * 8);
    assert.deepEqual([...rest.subarray(0, 12)], [1, 12, 4, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    const overrides: number[][] = [];
    for (let at = 12; at < rest.length; at += rest[at + 1] ?? 255) {
      overrides.push([...rest.subarray(at, at + (rest[at + 1] ?? 0))]);
    }
    assert.deepEqual(
      overrides.find(([type, , , irq]) => type === 2 && irq === layout.ACPI_SCI_GSI),
      [2, 10, 0, layout.ACPI_SCI_GSI, layout.ACPI_SCI_GSI, 0, 0, 0, 0b1101, 0],
    );
    assert.deepEqual(overrides.at(-1), [4, 6, 0xff, 0, 0, 1]);
  });

  it("tables do not overlap, each 64 bytes apart at least, with as many devices as there can be", () => {
    for (const count of [0, 1, 14]) {
      const many = new FakeMemory(2 * MIB);
      const virtio = Array.from({ length: count }, (_, i) => ({
        gpa: 0xc000_1000 + 4096 * i,
        length: 4096,
        gsi: 5 + i,
      }));
      const at = writeAcpiTables(many, { cpus: 32, virtio });
      const xsdt = Number(many.readU64(at + 24));
      const [fadt, madt] = [Number(many.readU64(xsdt + 36)), Number(many.readU64(xsdt + 44))];
      const places = [many.readU32(fadt + 36), many.readU32(fadt + 40), fadt, madt, xsdt];
      let end = at + 36;
      for (const place of places) {
        assert.ok(
          place >= end && place % 64 === 0 && place < end + 64,
          `0x${place.toString(16)} after 0x${end.toString(16)}`,
        );
        end = place + many.readU32(place + 4);
        if (ascii(many.slice(place, 4)) !== "FACS") assert.equal(sum(many.slice(place, end - place)), 0);
      }
      assert.ok(end <= layout.ACPI_GPA + layout.ACPI_CAPACITY);
    }
  });

  it("with a PCI bus, MCFG and the DSDT say where it is, and its configuration space is reserved twice", () => {
    for (const memorySize of [128 * MIB, 5 * GIB]) {
      const own = new FakeMemory(2 * MIB);
      const pci = pciHostBridge(memorySize);
      const at = writeAcpiTables(own, { cpus: 1, virtio: [], pci });
      const xsdt = Number(own.readU64(at + 24));
      assert.equal(own.readU32(xsdt + 4), 36 + 3 * 8);
      const [fadt, mcfg] = [Number(own.readU64(xsdt + 36)), Number(own.readU64(xsdt + 52))];
      assert.deepEqual([ascii(own.slice(mcfg, 4)), own.readU32(mcfg + 4)], ["MCFG", 60]);
      assert.equal(sum(own.slice(mcfg, 60)), 0);
      // Base address, segment, first and last bus.
      assert.equal(Number(own.readU64(mcfg + 44)), layout.PCI_ECAM_GPA);
      assert.deepEqual([...own.slice(mcfg + 52, 8)], [0, 0, 0, 0, 0, 0, 0, 0]);
      const dsdtAt = Number(own.readU64(fadt + 140));
      const dsdt = Buffer.from(own.slice(dsdtAt, own.readU32(dsdtAt + 4)));
      assert.equal(sum(dsdt), 0);
      const has = (bytes: readonly number[]): boolean => dsdt.includes(Buffer.from(bytes));
      assert.ok(has(named("_HID", eisaId("PNP0A08"))) && has(named("_CID", eisaId("PNP0A03"))));
      assert.ok(has(addressSpace(layout.PCI_WINDOW_GPA, layout.PCI_WINDOW_LENGTH, 4)));
      // Devices 1 and 31, any function, INTA#, at the I/O APIC itself: its inputs 17 and 23.
      assert.ok(has([0x12, 11, 4, 0x0c, 0xff, 0xff, 1, 0, 0, 0, 0x0a, 17]));
      assert.ok(has([0x12, 11, 4, 0x0c, 0xff, 0xff, 31, 0, 0, 0, 0x0a, 23]));
      const { gpa, length } = pci.highWindow;
      assert.ok(has(addressSpace(gpa, length, 8)));
      const ram = e820Entries(memorySize, pci.ecam);
      const end = Math.max(...ram.map((entry) => entry.gpa + entry.size));
      assert.ok(gpa >= end && gpa >= 4 * GIB && gpa + length <= 2 ** 36, `0x${gpa.toString(16)}`);
      assert.ok(ram.some((entry) => entry.gpa === layout.PCI_ECAM_GPA && entry.type === E820_TYPE_RESERVED));
      assert.ok(has(memory32(layout.PCI_ECAM_GPA, layout.PCI_ECAM_LENGTH)));
    }
  });

  it("descriptors of address space are as long as they say (ACPI 6.4 §6.4.3.5)", () => {
    assert.deepEqual(busNumbers(0, 0), [0x88, 13, 0, 2, 0b1100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    const low = Buffer.from(addressSpace(0xc800_0000, 0x1800_0000, 4));
    assert.deepEqual([low.length, low[0], low.readUInt16LE(1)], [26, 0x87, 23]);
    assert.deepEqual(
      [low.readUInt32LE(10), low.readUInt32LE(14), low.readUInt32LE(22)],
      [0xc800_0000, 0xdfff_ffff, 0x1800_0000],
    );
    const high = Buffer.from(addressSpace(8 * GIB, 32 * GIB, 8));
    assert.deepEqual([high.length, high[0], high.readUInt16LE(1)], [46, 0x8a, 43]);
    assert.deepEqual([high.readBigUInt64LE(14), high.readBigUInt64LE(22)], [0x2_0000_0000n, 0x9_ffff_ffffn]);
  });

  it("the DSDT has the VM's generation as drivers look for it, in a reserved page of its own, and the event's method", () => {
    const dsdt = Buffer.from(
      table(Number(memory.readU64(Number(memory.readU64(Number(memory.readU64(rsdp + 24)) + 36)) + 140))),
    );
    const has = (...bytes: (readonly number[])[]): boolean => dsdt.includes(Buffer.from(bytes.flat()));
    assert.ok(has(named("_CID", text("VM_Gen_Counter")), named("_DDN", text("VM_Gen_Counter"))));
    assert.ok(has(named("ADDR", pack(integer(layout.GENERATION_ID_GPA), integer(0)))));
    assert.ok(has(scope("\\_GPE", method("_E00", notify("\\_SB.VGEN", 0x80)))));
    const reserved = e820Entries(128 * MIB).find(({ type }) => type === E820_TYPE_RESERVED);
    assert.ok(reserved !== undefined && layout.GENERATION_ID_GPA >= reserved.gpa);
    assert.ok(layout.GENERATION_ID_GPA + layout.PAGE_SIZE <= reserved.gpa + reserved.size);
    assert.ok(layout.GENERATION_ID_GPA >= layout.ACPI_GPA + layout.ACPI_CAPACITY);
  });

  it("AML: names, strings, devices and resources, byte by byte. ACPI 6.4 chapter 20 and §6.4", () => {
    assert.deepEqual(named("_UID", integer(1)), [0x08, 0x5f, 0x55, 0x49, 0x44, 0x01]);
    assert.deepEqual(named("\\_S5", []), [0x08, 0x5c, 0x5f, 0x53, 0x35, 0x5f]);
    assert.deepEqual(notify("\\_SB.VGEN", 0x80), [
      ...[0x86, 0x5c, 0x2e, ...Buffer.from("_SB_VGEN", "latin1")],
      ...[0x0a, 0x80],
    ]);
    assert.deepEqual(method("_E00", [7]), [0x14, 7, 0x5f, 0x45, 0x30, 0x30, 0, 7]);
    assert.deepEqual(text("Ab"), [0x0d, 0x41, 0x62, 0]);
    assert.deepEqual(scope("\\_SB", [1, 2]), [0x10, 8, 0x5c, 0x5f, 0x53, 0x42, 0x5f, 1, 2]);
    assert.deepEqual(device("RTC", [7]), [0x5b, 0x82, 6, 0x52, 0x54, 0x43, 0x5f, 7]);
    assert.deepEqual(resources([9, 9]), [0x11, 7, 0x0a, 4, 9, 9, 0x79, 0]);
    assert.deepEqual(ioPorts(0x3f8, 8), [0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8]);
    assert.deepEqual(
      [isaIrq(4), isaIrq(9)],
      [
        [0x22, 0x10, 0],
        [0x22, 0, 2],
      ],
    );
    assert.deepEqual(memory32(0xc000_1000, 0x1000), [0x86, 9, 0, 1, 0, 0x10, 0, 0xc0, 0, 0x10, 0, 0]);
    assert.deepEqual(interrupt(16), [0x89, 6, 0, 3, 1, 16, 0, 0, 0]);
    assert.deepEqual(
      [integer(0xff), integer(0xffff), integer(0xffff_ffff)],
      [
        [0x0a, 0xff],
        [0x0b, 0xff, 0xff],
        [0x0c, 0xff, 0xff, 0xff, 0xff],
      ],
    );
    // 63 bytes are the most that one byte of length holds, 4095 those of two.
    assert.deepEqual(scope("ABCD", new Array<number>(58).fill(0)).slice(0, 2), [0x10, 63]);
    assert.deepEqual(scope("ABCD", new Array<number>(59).fill(0)).slice(0, 3), [0x10, 0x41, 4]);
    assert.deepEqual(scope("ABCD", new Array<number>(4089).fill(0)).slice(0, 3), [0x10, 0x4f, 0xff]);
    assert.throws(() => scope("ABCD", new Array<number>(4090).fill(0)), /4096 bytes/);
  });

  it("AML: integers take the shortest form, ids are compressed, long packages count themselves", () => {
    assert.deepEqual([0, 1, 2, 0x100, 0x10000].map(integer), [[0], [1], [0x0a, 2], [0x0b, 0, 1], [0x0c, 0, 0, 1, 0]]);
    assert.deepEqual(eisaId("PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
    const long = pack(...Array.from({ length: 40 }, () => integer(0x1234)));
    assert.equal(((long[1] ?? 0) & 0xf) | ((long[2] ?? 0) << 4), long.length - 1);
  });
});

describe("page-tables", () => {
  it("map 4 GiB one to one with 2 MiB pages", () => {
    const memory = new FakeMemory(2 * MIB);
    writePageTables(memory);
    const pdpt = memory.readU64(layout.BOOT_PML4_GPA);
    assert.equal(pdpt & ~0xfffn, BigInt(layout.BOOT_PDPT_GPA));
    for (const gpa of [0, 0x1000000, 0xc000_0000, 0xffe0_0000]) {
      const pd = memory.readU64(layout.BOOT_PDPT_GPA + 8 * Math.floor(gpa / 2 ** 30));
      const entry = memory.readU64(Number(pd & ~0xfffn) + 8 * (Math.floor(gpa / 2 ** 21) % 512));
      assert.equal(entry & ~0x1fffffn, BigInt(gpa));
      assert.equal(entry & 0x83n, 0x83n, "present, writable, large");
    }
  });
});

describe("cmdline", () => {
  it("is NUL-terminated in memory, in UTF-8", () => {
    const memory = new FakeMemory(2 * MIB);
    memory.slice(layout.CMDLINE_GPA, 64).fill(0xff);
    writeCmdline(memory, checkCmdline("console=ttyS0 x=é"));
    assert.equal(Buffer.from(memory.slice(layout.CMDLINE_GPA, 19)).toString("utf8"), "console=ttyS0 x=é\0");
  });

  it("one that is too long names its size and the limit; control characters name their place", () => {
    assert.equal(checkCmdline("x".repeat(2047)).length, 2047);
    assert.throws(() => checkCmdline("x".repeat(2048)), /2048 bytes, the limit is 2047/);
    assert.throws(() => checkCmdline("a\0b"), /control character 0x00 at byte 1/);
    assert.throws(() => checkCmdline("a\nb"), ConfigError);
  });
});
