// A guest of a few bytes at privilege level 0 with what a kernel has: descriptor tables, a task
// state segment, an interrupt table whose handlers report their vector, user and kernel pages.
// Exits that a software KVM makes go through the fix-ups, as in the monitor; on hardware the
// same code runs by itself, so every expectation is the processor's own.
import { FIXUP_NAMES, type FixupName } from "../../vmm/fixups/fixup.js";
import { Fixups } from "../../vmm/fixups/fixups.js";
import { GuestRegisters } from "../../vmm/fixups/guest-registers.js";
import { probeQuirks } from "../../vmm/fixups/probe.js";
import type { Quirks } from "../../vmm/fixups/quirks.js";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from "../../vmm/fixups/syscall.js";
import { KvmSystem } from "../../vmm/kvm/system.js";
import type { VcpuFd } from "../../vmm/kvm/vcpu-fd.js";
import type { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { KVM_EXIT_HLT, KVM_EXIT_MMIO, kvm_dtable, kvm_run, kvm_segment, kvm_sregs } from "../../vmm/sys/kvm-abi.js";
import { TINY_MMIO_GPA, createTinyVm, type RegisterValues } from "../../vmm/fixups/tiny-vm.js";
import { CODE_64, DATA, encodeDescriptor } from "../../vmm/x86/gdt.js";
import { exitName } from "../../vmm/vcpu/exit-names.js";

const PD = 0x3000;
const PT = 0x4000;
const GDT = 0x5000;
const TSS = 0x6000;
const IDT = 0x7000;
const HANDLERS = 0x8_1000;
const HANDLER_LENGTH = 16;
const KERNEL_STACK = 0x9_0000;
/** From here on, pages are the kernel's; below, the user's too. */
export const KERNEL_PAGES_GPA = 0x8_0000;
export const SCRATCH_GPA = 0x3_0000;
/** A page that is not present. */
export const UNMAPPED_GPA = 0xa_0000;
const PAGES = 512;
const VECTORS = 32;
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);
const INTERRUPT_GATE_PRESENT = 0x8e00n;

export interface KernelGuestRun {
  /** Values that the guest has stored at RDI, in order. */
  readonly reports: number[];
  readonly fixups: Partial<Record<FixupName, number>>;
}

export interface KernelGuest {
  readonly vcpu: VcpuFd;
  readonly memory: MappedGuestMemory;
  readonly registers: GuestRegisters;
  readonly quirks: Quirks | undefined;
  /**
   * Runs until HLT or the number of reports; any other end is an error with its name.
   * Vectors report as 0x100 + vector; the error code follows where there is one.
   */
  readonly run: (reports?: number) => KernelGuestRun;
  /** Call after changing MSRs from outside: the fix-ups learn them from the guest's own writes. */
  readonly rearm: () => void;
  readonly close: () => void;
}

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** mov [rdi], eax */
export const REPORT = [0x89, 0x07];
export const HLT = [0xf4];

/** mov eax, 0x100 + vector; mov [rdi], eax; [pop rax; mov [rdi], eax]; hlt */
function handler(vector: number): number[] {
  const errorCode = WITH_ERROR_CODE.has(vector) ? [0x58, ...REPORT] : [];
  return [0xb8, ...u32(0x100 + vector), ...REPORT, ...errorCode, ...HLT];
}

export interface KernelGuestOptions {
  readonly code: readonly number[];
  readonly cpl?: 0 | 3;
  readonly registers?: RegisterValues;
  readonly cr4?: bigint;
}

export function kernelGuest({ code, cpl = 0, registers = {}, cr4 = 0n }: KernelGuestOptions): KernelGuest {
  const system = KvmSystem.open();
  const quirks = probeQuirks(system);
  const tiny = createTinyVm(system, {
    code,
    cpl,
    cr4,
    registers: { rdi: TINY_MMIO_GPA, rsi: SCRATCH_GPA, ...registers },
    prepare: (vm) => {
      if (quirks?.syscallStaysInUserMode === true) vm.exitOnMsrWrites([MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK]);
    },
  });
  const { vcpu, memory } = tiny;
  setUpTables(vcpu, memory);
  if (quirks !== undefined) GuestRegisters.enable(vcpu.run);
  const counters = new Int32Array(new SharedArrayBuffer(64));
  const locks = new Int32Array(new SharedArrayBuffer(4));
  const newFixups = (): Fixups | undefined =>
    quirks === undefined ? undefined : new Fixups(vcpu, memory, quirks, counters, locks, 0);
  let fixups = newFixups();
  return {
    vcpu,
    memory,
    quirks,
    registers: new GuestRegisters(vcpu.run),
    run: (wanted = Infinity) => {
      const reports: number[] = [];
      if (fixups !== undefined) armBreakpoint(vcpu, fixups);
      while (reports.length < wanted) {
        while (!vcpu.enter());
        const reason = vcpu.run.exitReason;
        fixups?.observe();
        if (reason === KVM_EXIT_HLT) break;
        if (reason === KVM_EXIT_MMIO) reports.push(vcpu.run.loadU32(kvm_run.mmio_data));
        else if (fixups?.answer(reason) !== true) throw new Error(`The guest stopped with ${exitName(reason)}`);
      }
      const counted = FIXUP_NAMES.flatMap((name, i) => ((counters[i] ?? 0) > 0 ? [[name, counters[i]]] : []));
      return { reports, fixups: Object.fromEntries(counted) as Partial<Record<FixupName, number>> };
    },
    rearm: () => {
      fixups = newFixups();
    },
    close: () => {
      tiny.close();
      system.close();
    },
  };
}

/** The monitor sees many exits before the first program; here one has to be made. */
function armBreakpoint(vcpu: VcpuFd, fixups: Fixups): void {
  vcpu.run.immediateExit = 1;
  vcpu.enter();
  vcpu.run.immediateExit = 0;
  fixups.observe();
}

function setUpTables(vcpu: VcpuFd, memory: MappedGuestMemory): void {
  memory.writeU64(PD, BigInt(PT) | 7n);
  for (let page = 0; page < PAGES; page++) {
    const gpa = page * 0x1000;
    const rights = gpa === UNMAPPED_GPA ? 0n : gpa >= KERNEL_PAGES_GPA ? 3n : 7n;
    memory.writeU64(PT + 8 * page, BigInt(gpa) | rights);
  }
  memory.writeU64(GDT + 0x10, encodeDescriptor(CODE_64));
  memory.writeU64(GDT + 0x18, encodeDescriptor(DATA));
  memory.writeU64(GDT + 0x28, encodeDescriptor({ ...DATA, selector: 0x28, dpl: 3 }));
  memory.writeU64(GDT + 0x30, encodeDescriptor({ ...CODE_64, selector: 0x30, dpl: 3 }));
  memory.writeU64(TSS + 4, BigInt(KERNEL_STACK)); // RSP0
  for (let vector = 0; vector < VECTORS; vector++) {
    const at = HANDLERS + vector * HANDLER_LENGTH;
    // The page-fault handler begins as Linux's does.
    const bytes = vector === 14 ? [0xfc, ...handler(vector)] : handler(vector);
    memory.slice(at, bytes.length).set(bytes);
    const low = BigInt(at & 0xffff) | (0x10n << 16n) | (INTERRUPT_GATE_PRESENT << 32n) | (BigInt(at >>> 16) << 48n);
    memory.writeU64(IDT + 16 * vector, low);
    memory.writeU64(IDT + 16 * vector + 8, 0n);
  }
  const sregs = vcpu.getSregs();
  const tr = kvm_sregs.tr;
  sregs.setBigUint64(tr + kvm_segment.base, BigInt(TSS), true);
  sregs.setUint32(tr + kvm_segment.limit, 0x67, true);
  sregs.setUint16(tr + kvm_segment.selector, 0x40, true);
  sregs.setUint8(tr + kvm_segment.type, 11);
  sregs.setUint8(tr + kvm_segment.present, 1);
  sregs.setUint8(tr + kvm_segment.s, 0);
  sregs.setBigUint64(kvm_sregs.gdt + kvm_dtable.base, BigInt(GDT), true);
  sregs.setUint16(kvm_sregs.gdt + kvm_dtable.limit, 0x3f, true);
  sregs.setBigUint64(kvm_sregs.idt + kvm_dtable.base, BigInt(IDT), true);
  sregs.setUint16(kvm_sregs.idt + kvm_dtable.limit, 16 * VECTORS - 1, true);
  vcpu.setSregs(sregs);
}
