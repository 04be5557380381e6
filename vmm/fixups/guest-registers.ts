// A stopped vCPU's registers in the page that it shares with KVM (KVM_CAP_SYNC_REGS): every exit
// has stored them there, and what is marked dirty is loaded at the next KVM_RUN. A fix-up costs
// no further system call for them. KVM api.rst §5, "kvm_valid_regs and kvm_dirty_regs".
import type { KvmRun } from "../kvm/kvm-run.js";
import {
  KVM_SYNC_X86_REGS,
  KVM_SYNC_X86_SREGS,
  kvm_dtable,
  kvm_regs,
  kvm_run,
  kvm_segment,
  kvm_sregs,
  kvm_sync_regs,
} from "../sys/kvm-abi.js";
import type { Instruction } from "./instruction.js";
import type { PagingState } from "./paging.js";

/** Offsets by the number that instructions use: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … r15. */
const GPR = [
  kvm_regs.rax,
  kvm_regs.rcx,
  kvm_regs.rdx,
  kvm_regs.rbx,
  kvm_regs.rsp,
  kvm_regs.rbp,
  kvm_regs.rsi,
  kvm_regs.rdi,
  kvm_regs.r8,
  kvm_regs.r9,
  kvm_regs.r10,
  kvm_regs.r11,
  kvm_regs.r12,
  kvm_regs.r13,
  kvm_regs.r14,
  kvm_regs.r15,
].map((offset) => kvm_run.s + kvm_sync_regs.regs + offset);

const REGS = kvm_run.s + kvm_sync_regs.regs;
const SREGS = kvm_run.s + kvm_sync_regs.sregs;

const INTERRUPT_BITMAP = SREGS + kvm_sregs.interrupt_bitmap;

export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const R11 = 11;

export type ControlRegister = "cr0" | "cr2" | "cr3" | "cr4" | "efer";
export type SegmentRegister = "cs" | "ds" | "es" | "fs" | "gs" | "ss";

export class GuestRegisters implements PagingState {
  readonly #run: KvmRun;

  constructor(run: KvmRun) {
    this.#run = run;
  }

  /** Asks KVM to store registers at every exit; once, before the first KVM_RUN. */
  static enable(run: KvmRun): void {
    run.storeU64(kvm_run.kvm_valid_regs, BigInt(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS));
  }

  gpr(number: number): bigint {
    return this.#run.loadU64(GPR[number] ?? REGS);
  }

  setGpr(number: number, value: bigint): void {
    this.#store(GPR[number] ?? REGS, value, KVM_SYNC_X86_REGS);
  }

  get rip(): bigint {
    return this.#run.loadU64(REGS + kvm_regs.rip);
  }

  set rip(value: bigint) {
    this.#store(REGS + kvm_regs.rip, value, KVM_SYNC_X86_REGS);
  }

  get rflags(): bigint {
    return this.#run.loadU64(REGS + kvm_regs.rflags);
  }

  set rflags(value: bigint) {
    this.#store(REGS + kvm_regs.rflags, value, KVM_SYNC_X86_REGS);
  }

  get cr0(): bigint {
    return this.control("cr0");
  }

  get cr3(): bigint {
    return this.control("cr3");
  }

  get cr4(): bigint {
    return this.control("cr4");
  }

  control(name: ControlRegister): bigint {
    return this.#run.loadU64(SREGS + kvm_sregs[name]);
  }

  setControl(name: ControlRegister, value: bigint): void {
    this.#store(SREGS + kvm_sregs[name], value, KVM_SYNC_X86_SREGS);
  }

  get idtBase(): bigint {
    return this.#run.loadU64(SREGS + kvm_sregs.idt + kvm_dtable.base);
  }

  get idtLimit(): number {
    return this.#run.load(SREGS + kvm_sregs.idt + kvm_dtable.limit, 2);
  }

  /** Current privilege level: that of the stack segment. Intel SDM vol. 3 §5.5. */
  get cpl(): number {
    return this.#run.load(SREGS + kvm_sregs.ss + kvm_segment.dpl, 1);
  }

  /** True in 64-bit code of long mode, the only one that the fix-ups know. */
  get isLongMode(): boolean {
    return this.#run.load(SREGS + kvm_sregs.cs + kvm_segment.l, 1) === 1;
  }

  segmentBase(name: SegmentRegister): bigint {
    return this.#run.loadU64(SREGS + kvm_sregs[name] + kvm_segment.base);
  }

  /** A flat code or data segment of 64-bit mode, as SYSCALL loads it. */
  setFlatSegment(name: "cs" | "ss", selector: number, dpl: number): void {
    const at = SREGS + kvm_sregs[name];
    const run = this.#run;
    const isCode = name === "cs";
    this.#store(at + kvm_segment.base, 0n, KVM_SYNC_X86_SREGS);
    run.store(at + kvm_segment.limit, 4, 0xffff_ffff);
    run.store(at + kvm_segment.selector, 2, selector);
    run.store(at + kvm_segment.type, 1, isCode ? 11 : 3);
    run.store(at + kvm_segment.present, 1, 1);
    run.store(at + kvm_segment.dpl, 1, dpl);
    run.store(at + kvm_segment.db, 1, isCode ? 0 : 1);
    run.store(at + kvm_segment.s, 1, 1);
    run.store(at + kvm_segment.l, 1, isCode ? 1 : 0);
    run.store(at + kvm_segment.g, 1, 1);
    run.store(at + kvm_segment.unusable, 1, 0);
  }

  /** Linear address of a memory operand; RIP-relative ones count from the next instruction. */
  linearAddress(instruction: Instruction): bigint {
    const { memory, segment, length, hasAddressSize } = instruction;
    if (memory === undefined) throw new TypeError("The instruction has no memory operand");
    let address = memory.displacement;
    if (memory.base === "rip") address += this.rip + BigInt(length);
    else if (memory.base !== undefined) address += this.gpr(memory.base);
    if (memory.index !== undefined) address += this.gpr(memory.index) * BigInt(memory.scale);
    if (hasAddressSize) address = BigInt.asUintN(32, address);
    if (segment !== undefined) address += this.segmentBase(segment);
    return BigInt.asUintN(64, address);
  }

  #store(offset: number, value: bigint, dirty: number): void {
    const run = this.#run;
    run.storeU64(offset, BigInt.asUintN(64, value));
    // Loading sregs queues what this bitmap holds, and KVM leaves an interrupt in it that has long
    // been delivered. An empty one changes nothing: what is pending stays pending inside KVM.
    if (dirty === KVM_SYNC_X86_SREGS) for (let i = 0; i < 4; i++) run.storeU64(INTERRUPT_BITMAP + 8 * i, 0n);
    run.storeU64(kvm_run.kvm_dirty_regs, run.loadU64(kvm_run.kvm_dirty_regs) | BigInt(dirty));
  }
}
