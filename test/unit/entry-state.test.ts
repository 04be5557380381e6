// Needs: nothing. What a vCPU holds when it enters a kernel, field by field: descriptors, registers, the local
// APIC's pins, page tables. Intel SDM vol. 3; Linux/x86 boot protocol; Xen's PVH ABI.
import assert from "node:assert/strict";
import * as layout from "../../vmm/memory/layout.js";
import { SIZEOF_KVM_SREGS, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs } from "../../vmm/sys/kvm-abi.js";
import { CODE_32, CODE_64, DATA, TSS, encodeDescriptor, writeGdt } from "../../vmm/x86/gdt.js";
import { wireLocalInterrupts } from "../../vmm/x86/lapic.js";
import { bootMsrs } from "../../vmm/x86/msrs.js";
import { MAPPED_BYTES, writePageTables } from "../../vmm/x86/page-tables.js";
import { entryCode, entryRegs, setEntrySregs, setSegment } from "../../vmm/x86/regs.js";
import { checksum, putAscii } from "../../vmm/x86/table-bytes.js";
import { FakeMemory } from "../helpers/fake-memory.js";

const { GIB, MIB } = layout;

describe("descriptors", () => {
  it("are what the processor reads", () => {
    // As Linux has its own: 0x00af9b…, 0x00cf9b…, 0x00cf93…, and a busy TSS of 0x68 bytes.
    assert.equal(encodeDescriptor(CODE_64), 0x00af_9b00_0000_ffffn);
    assert.equal(encodeDescriptor(CODE_32), 0x00cf_9b00_0000_ffffn);
    assert.equal(encodeDescriptor(DATA), 0x00cf_9300_0000_ffffn);
    assert.equal(encodeDescriptor(TSS), 0x0000_8b00_0000_0067n);
  });

  it("spread base and limit over their bytes", () => {
    const segment = { ...DATA, base: 0x1234_5678, limit: 0xa_bcde, g: 0, dpl: 3 } as const;
    assert.equal(encodeDescriptor(segment), 0x124a_f334_5678_bcden);
    // With granularity the limit counts pages.
    assert.equal(encodeDescriptor({ ...segment, g: 1, limit: 0xabcd_efff }), 0x12ca_f334_5678_bcden);
  });

  it("lie where their selectors say, behind a null one", () => {
    for (const code of [CODE_64, CODE_32]) {
      const memory = new FakeMemory(MIB);
      memory.slice(0, 0x1000).fill(0xff);
      writeGdt(memory, code);
      const entries = [0, 0x10, 0x18, 0x20].map((selector) => memory.readU64(layout.BOOT_GDT_GPA + selector));
      assert.deepEqual(entries, [0n, encodeDescriptor(code), encodeDescriptor(DATA), encodeDescriptor(TSS)]);
      assert.equal(memory.readU64(layout.BOOT_IDT_GPA), 0n);
    }
  });
});

describe("entry registers", () => {
  const reg = (regs: DataView, name: keyof typeof kvm_regs): number => Number(regs.getBigUint64(kvm_regs[name], true));

  it("64-bit: RSI is the zero page, the stack is there", () => {
    for (const format of ["elf-linux64", "bzimage"] as const) {
      const regs = entryRegs(format, 0x100_0200);
      assert.deepEqual(
        (["rip", "rflags", "rsi", "rsp", "rbp", "rbx"] as const).map((name) => reg(regs, name)),
        [0x100_0200, 2, layout.BOOT_PARAMS_GPA, layout.BOOT_STACK_GPA, layout.BOOT_STACK_GPA, 0],
      );
      assert.equal(entryCode(format), CODE_64);
    }
  });

  it("PVH: RBX is the start info", () => {
    const regs = entryRegs("elf-pvh", 0x123_4560);
    assert.deepEqual(
      (["rip", "rflags", "rsi", "rsp", "rbx"] as const).map((name) => reg(regs, name)),
      [0x123_4560, 2, 0, 0, layout.PVH_START_INFO_GPA],
    );
    assert.equal(entryCode("elf-pvh"), CODE_32);
  });

  it("control registers and tables: long mode with paging, or protected mode without", () => {
    for (const [format, cr0, cr3, cr4, efer] of [
      ["elf-linux64", 0x8000_0011, layout.BOOT_PML4_GPA, 0x20, 0x500],
      ["elf-pvh", 0x11, 0, 0, 0],
    ] as const) {
      const sregs = new DataView(new ArrayBuffer(SIZEOF_KVM_SREGS));
      new Uint8Array(sregs.buffer).fill(0xff);
      setEntrySregs(sregs, format);
      const value = (at: number): number => Number(sregs.getBigUint64(at, true));
      assert.deepEqual([kvm_sregs.cr0, kvm_sregs.cr3, kvm_sregs.cr4, kvm_sregs.efer].map(value), [cr0, cr3, cr4, efer]);
      assert.equal(value(kvm_sregs.gdt + kvm_dtable.base), layout.BOOT_GDT_GPA);
      assert.equal(sregs.getUint16(kvm_sregs.gdt + kvm_dtable.limit, true), 0x27);
      assert.equal(value(kvm_sregs.idt + kvm_dtable.base), layout.BOOT_IDT_GPA);
      assert.equal(sregs.getUint16(kvm_sregs.idt + kvm_dtable.limit, true), 7);
      const selectors = (["cs", "ds", "es", "fs", "gs", "ss", "tr"] as const).map((name) =>
        sregs.getUint16(kvm_sregs[name] + kvm_segment.selector, true),
      );
      assert.deepEqual(selectors, [0x10, 0x18, 0x18, 0x18, 0x18, 0x18, 0x20]);
      // What KVM gave at reset stays.
      assert.equal(sregs.getBigUint64(kvm_sregs.apic_base, true), 0xffff_ffff_ffff_ffffn);
      assert.equal(sregs.getBigUint64(kvm_sregs.ldt, true), 0xffff_ffff_ffff_ffffn);
    }
  });

  it("a segment is written field by field", () => {
    const sregs = new DataView(new ArrayBuffer(64));
    new Uint8Array(sregs.buffer).fill(0xee);
    const at = 8;
    setSegment(sregs, at, { base: 0x1_2345, limit: 0x67, selector: 0x33, type: 5, dpl: 3, db: 1, s: 0, l: 1, g: 0 });
    assert.deepEqual(
      [
        sregs.getBigUint64(at, true),
        sregs.getUint32(at + 8, true),
        sregs.getUint16(at + 12, true),
        ...(["type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable"] as const).map((name) =>
          sregs.getUint8(at + kvm_segment[name]),
        ),
      ],
      [0x1_2345n, 0x67, 0x33, 5, 1, 3, 1, 0, 1, 0, 0, 0],
    );
    assert.deepEqual([sregs.getUint8(at - 1), sregs.getUint8(at + 24)], [0xee, 0xee]);
  });
});

describe("local APIC", () => {
  it("LINT0 is the 8259A's at the boot processor and masked elsewhere; LINT1 is the NMI", () => {
    for (const [isBoot, lint0] of [
      [true, 0x700],
      [false, 0x1_0700],
    ] as const) {
      const lapic = new DataView(new ArrayBuffer(1024));
      // At reset both are masked; the vector and the polarity are kept.
      lapic.setUint32(0x350, 0x1_0000 | 0x2033, true);
      lapic.setUint32(0x360, 0x1_0000 | 0x744, true);
      wireLocalInterrupts(lapic, isBoot);
      assert.equal(lapic.getUint32(0x350, true), lint0 | 0x2033);
      assert.equal(lapic.getUint32(0x360, true), 0x444);
      assert.deepEqual([lapic.getUint32(0x340, true), lapic.getUint32(0x370, true)], [0, 0]);
    }
  });
});

describe("MSRs at the entry", () => {
  it("memory is write-back by default, and string instructions are fast", () => {
    assert.deepEqual(bootMsrs([]), [
      [0x1a0, 1n],
      [0x2ff, 0x806n],
    ]);
  });
});

describe("page tables of the entry", () => {
  it("every entry of the first 4 GiB, and no other", () => {
    const memory = new FakeMemory(MIB);
    writePageTables(memory);
    assert.equal(MAPPED_BYTES, 4 * GIB);
    assert.equal(memory.readU64(layout.BOOT_PML4_GPA), BigInt(layout.BOOT_PDPT_GPA) | 3n);
    for (let directory = 0; directory < 4; directory++) {
      const at = layout.BOOT_PD_GPA + directory * 0x1000;
      assert.equal(memory.readU64(layout.BOOT_PDPT_GPA + 8 * directory), BigInt(at) | 3n);
      for (let index = 0; index < 512; index++) {
        const expected = BigInt(directory) * BigInt(GIB) + BigInt(index) * 0x20_0000n;
        assert.equal(memory.readU64(at + 8 * index), expected | 0x83n);
      }
    }
    assert.equal(memory.readU64(layout.BOOT_PDPT_GPA + 32), 0n);
    assert.equal(memory.readU64(layout.BOOT_PD_GPA + 4 * 0x1000), 0n);
  });
});

describe("table bytes", () => {
  it("a checksum makes the sum 0; text has no terminator", () => {
    assert.equal(checksum(Uint8Array.of(1, 2, 3)), 0xfa);
    assert.equal(checksum(Uint8Array.of(0xff, 0xff)), 2);
    assert.equal(checksum(new Uint8Array(4)), 0);
    const bytes = new Uint8Array(6).fill(9);
    putAscii(bytes, 1, "AbZ");
    assert.deepEqual([...bytes], [9, 65, 98, 90, 9, 9]);
  });
});
