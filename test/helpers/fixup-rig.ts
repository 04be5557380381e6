// A stopped vCPU without KVM, for the fix-ups: its registers in a page like the one it shares with KVM,
// memory with page tables, and what the fix-ups ask of KVM written down.
import { KvmIoctlError } from "../../vmm/errors.js";
import type { FixupContext } from "../../vmm/fixups/fixup.js";
import type { FixupVcpu } from "../../vmm/fixups/fixups.js";
import { GuestRegisters } from "../../vmm/fixups/guest-registers.js";
import { KvmRun } from "../../vmm/kvm/kvm-run.js";
import {
  SIZEOF_KVM_XSAVE,
  kvm_dtable,
  kvm_regs,
  kvm_run,
  kvm_segment,
  kvm_sregs,
  kvm_sync_regs,
} from "../../vmm/sys/kvm-abi.js";
import { mmapAnonymous } from "../../vmm/sys/memory.js";
import { FakeMemory } from "./fake-memory.js";

export const RAM_BYTES = 0x4_0000;
const RUN_BYTES = 4096;
const REGS = kvm_run.s + kvm_sync_regs.regs;
const SREGS = kvm_run.s + kvm_sync_regs.sregs;
const EINVAL = 22;

// Page tables: linear addresses from 0 on are physical ones, each page with its own entry.
export const PML5 = 0x3_5000;
export const PML4 = 0x3_1000;
export const PDPT = 0x3_2000;
export const PD = 0x3_3000;
export const PT = 0x3_4000;
export const PRESENT = 1n;
export const WRITABLE = 2n;
export const USER = 4n;
export const ACCESSED = 0x20n;
export const DIRTY = 0x40n;
export const NX = 1n << 63n;
/** The first page that is not there. */
export const UNMAPPED = 0x2_0000;

/** Shared by all: one rig at a time. */
const run = new KvmRun(mmapAnonymous(RUN_BYTES), RUN_BYTES);

export interface FixupRig extends FixupContext {
  readonly memory: FakeMemory;
  readonly run: KvmRun;
  readonly kvm: FixupVcpu;
  xsave: DataView<ArrayBuffer>;
  xcr0: bigint;
  /** Values that KVM takes for XCR0. */
  xcr0Allowed: (value: bigint) => boolean;
  readonly msrs: Map<number, bigint>;
  /** What was asked of KVM: "break 0x1000", "inject 14 2". */
  readonly log: string[];
  readonly set: (name: keyof typeof kvm_regs, value: bigint) => void;
  readonly get: (name: keyof typeof kvm_regs) => bigint;
  readonly setControl: (name: "cr0" | "cr2" | "cr3" | "cr4", value: bigint) => void;
  readonly setSegment: (name: "cs" | "ss" | "fs" | "gs", field: keyof typeof kvm_segment, value: bigint) => void;
  readonly setIdt: (base: bigint, limit: number) => void;
  /** Changes the entry of the page at `linear`. */
  readonly setPage: (linear: number, entry: bigint) => void;
}

/** In 64-bit mode at privilege level 0, with paging, all other registers 0. */
export function fixupRig(): FixupRig {
  for (let at = 0; at < RUN_BYTES; at += 8) run.storeU64(at, 0n);
  const memory = new FakeMemory(RAM_BYTES);
  const table = WRITABLE | USER | PRESENT;
  memory.writeU64(PML5, BigInt(PML4) | table);
  memory.writeU64(PML4, BigInt(PDPT) | table);
  memory.writeU64(PDPT, BigInt(PD) | table);
  memory.writeU64(PD, BigInt(PT) | table);
  for (let page = 0; page < UNMAPPED; page += 0x1000) memory.writeU64(PT + page / 512, BigInt(page) | table);
  const log: string[] = [];
  const msrs = new Map<number, bigint>();
  const kvm: FixupVcpu = {
    run,
    getXsave: () => new DataView(rig.xsave.buffer.slice(0)),
    setXsave: (state) => {
      rig.xsave = new DataView((state.buffer as ArrayBuffer).slice(0));
    },
    getXcr0: () => rig.xcr0,
    setXcr0: (value) => {
      if (!rig.xcr0Allowed(value)) throw new KvmIoctlError("KVM_SET_XCRS", EINVAL, "EINVAL");
      rig.xcr0 = value;
    },
    getMsrs: (indices) => indices.map((index) => msrs.get(index) ?? 0n),
    setHardwareBreakpoint: (linear) => log.push(`break 0x${linear.toString(16)}`),
    trySetMsr: (index, value) => {
      const isKnown = index !== 0x666;
      if (isKnown) msrs.set(index, value);
      return isKnown;
    },
    injectException: (vector, errorCode) => log.push(`inject ${String(vector)} ${String(errorCode)}`),
  };
  const rig: FixupRig = {
    run,
    kvm,
    memory,
    registers: new GuestRegisters(run),
    vcpu: kvm,
    xsave: new DataView(new ArrayBuffer(SIZEOF_KVM_XSAVE)),
    xcr0: 7n,
    xcr0Allowed: () => true,
    msrs,
    log,
    set: (name, value) => run.storeU64(REGS + kvm_regs[name], value),
    get: (name) => run.loadU64(REGS + kvm_regs[name]),
    setControl: (name, value) => run.storeU64(SREGS + kvm_sregs[name], value),
    setSegment: (name, field, value) => {
      const at = SREGS + kvm_sregs[name] + kvm_segment[field];
      if (field === "base") run.storeU64(at, value);
      else run.store(at, field === "limit" ? 4 : field === "selector" ? 2 : 1, Number(value));
    },
    setIdt: (base, limit) => {
      run.storeU64(SREGS + kvm_sregs.idt + kvm_dtable.base, base);
      run.store(SREGS + kvm_sregs.idt + kvm_dtable.limit, 2, limit);
    },
    setPage: (linear, entry) => memory.writeU64(PT + Math.floor(linear / 0x1000) * 8, entry),
  };
  rig.setControl("cr0", (1n << 31n) | (1n << 16n) | 1n);
  rig.setControl("cr3", BigInt(PML4));
  rig.setSegment("cs", "l", 1n);
  return rig;
}
