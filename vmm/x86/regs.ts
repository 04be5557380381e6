// Register state at the kernel's entry, as bytes of KVM_SET_REGS and KVM_SET_SREGS.
// linux64: Linux/x86 boot protocol, "64-bit Boot Protocol". pvh: Xen's PVH boot ABI.
import {
  BOOT_GDT_GPA,
  BOOT_IDT_GPA,
  BOOT_PARAMS_GPA,
  BOOT_PML4_GPA,
  BOOT_STACK_GPA,
  PVH_START_INFO_GPA,
} from "../memory/layout.js";
import { SIZEOF_KVM_REGS, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs } from "../sys/kvm-abi.js";
import { CODE_32, CODE_64, DATA, GDT_LIMIT, IDT_LIMIT, TSS, type Segment } from "./gdt.js";
import type { KernelFormat } from "./kernel.js";

const CR0_PE = 1n << 0n;
const CR0_ET = 1n << 4n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
/** Bit 1 of RFLAGS is always set. */
const RFLAGS_RESERVED = 0x2n;

/** The code segment that the format is entered with. */
export function entryCode(format: KernelFormat): Segment {
  return format === "elf-pvh" ? CODE_32 : CODE_64;
}

/** struct kvm_regs at the entry. */
export function entryRegs(format: KernelFormat, entry: number): DataView {
  const regs = new DataView(new ArrayBuffer(SIZEOF_KVM_REGS));
  regs.setBigUint64(kvm_regs.rip, BigInt(entry), true);
  regs.setBigUint64(kvm_regs.rflags, RFLAGS_RESERVED, true);
  if (format === "elf-pvh") {
    regs.setBigUint64(kvm_regs.rbx, BigInt(PVH_START_INFO_GPA), true);
  } else {
    regs.setBigUint64(kvm_regs.rsi, BigInt(BOOT_PARAMS_GPA), true);
    regs.setBigUint64(kvm_regs.rsp, BigInt(BOOT_STACK_GPA), true);
    regs.setBigUint64(kvm_regs.rbp, BigInt(BOOT_STACK_GPA), true);
  }
  return regs;
}

/** Changes the struct kvm_sregs that KVM gave at reset (the APIC base stays). */
export function setEntrySregs(sregs: DataView, format: KernelFormat): void {
  const code = entryCode(format);
  setSegment(sregs, kvm_sregs.cs, code);
  for (const at of [kvm_sregs.ds, kvm_sregs.es, kvm_sregs.fs, kvm_sregs.gs, kvm_sregs.ss]) setSegment(sregs, at, DATA);
  setSegment(sregs, kvm_sregs.tr, TSS);
  setTable(sregs, kvm_sregs.gdt, BOOT_GDT_GPA, GDT_LIMIT);
  setTable(sregs, kvm_sregs.idt, BOOT_IDT_GPA, IDT_LIMIT);
  const isLong = format !== "elf-pvh";
  sregs.setBigUint64(kvm_sregs.cr0, CR0_PE | CR0_ET | (isLong ? CR0_PG : 0n), true);
  sregs.setBigUint64(kvm_sregs.cr3, isLong ? BigInt(BOOT_PML4_GPA) : 0n, true);
  sregs.setBigUint64(kvm_sregs.cr4, isLong ? CR4_PAE : 0n, true);
  sregs.setBigUint64(kvm_sregs.efer, isLong ? EFER_LME | EFER_LMA : 0n, true);
}

/** Writes one struct kvm_segment. */
export function setSegment(sregs: DataView, at: number, segment: Segment): void {
  sregs.setBigUint64(at + kvm_segment.base, BigInt(segment.base), true);
  sregs.setUint32(at + kvm_segment.limit, segment.limit, true);
  sregs.setUint16(at + kvm_segment.selector, segment.selector, true);
  sregs.setUint8(at + kvm_segment.type, segment.type);
  sregs.setUint8(at + kvm_segment.present, 1);
  sregs.setUint8(at + kvm_segment.dpl, segment.dpl);
  sregs.setUint8(at + kvm_segment.db, segment.db);
  sregs.setUint8(at + kvm_segment.s, segment.s);
  sregs.setUint8(at + kvm_segment.l, segment.l);
  sregs.setUint8(at + kvm_segment.g, segment.g);
  sregs.setUint8(at + kvm_segment.avl, 0);
  sregs.setUint8(at + kvm_segment.unusable, 0);
}

function setTable(sregs: DataView, at: number, base: number, limit: number): void {
  sregs.setBigUint64(at + kvm_dtable.base, BigInt(base), true);
  sregs.setUint16(at + kvm_dtable.limit, limit, true);
}
