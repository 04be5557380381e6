// SYSCALL from user code, on a KVM that sets RIP, RCX and R11 but stays at privilege level 3.
//
// The fetch of the kernel's entry then faults: the guest's kernel would get a page fault at its
// own entry point, from user mode, and kill the program. A breakpoint on the first instruction
// of the guest's page-fault handler stops it there. If the frame on the stack is that fault,
// the frame is taken back and SYSCALL finished by hand: AMD64 APM vol. 3, SYSCALL. Any other
// page fault goes on behind the handler's first instruction, which is done by hand because the
// breakpoint would hit it again (it ignores RFLAGS.RF).
import type { GuestMemory } from "../../devices/contracts.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import type { FixupContext, FixupName } from "./fixup.js";
import { GuestFault, PF_VECTOR, UD_VECTOR } from "./guest-fault.js";
import { R11, RCX, RSP, type GuestRegisters } from "./guest-registers.js";
import { readLinear } from "./linear-memory.js";
import { linearBits, translate } from "./paging.js";

export const MSR_STAR = 0xc000_0081;
export const MSR_LSTAR = 0xc000_0082;
export const MSR_SYSCALL_MASK = 0xc000_0084;

const GATE_LENGTH = 16;
const GATE_PRESENT = 1 << 15;

/** Error code of the fetch: protection violation in user mode; bit 4 is set only where NX is on. */
const PF_PRESENT_USER = 0x5n;
const PF_FETCH = 0x10n;
const RFLAGS_FIXED = 1n << 1n;
const RFLAGS_IF = 1n << 9n;
const RFLAGS_DF = 1n << 10n;
const RFLAGS_RF = 1n << 16n;
const RFLAGS_AC = 1n << 18n;
/** Flags that a program cannot change itself, and so must not get by a jump to the entry: IF, IOPL, VM, VIF, VIP. */
const RFLAGS_PRIVILEGED = RFLAGS_IF | (3n << 12n) | (1n << 17n) | (1n << 19n) | (1n << 20n);

// The frame that a page fault pushes, from RSP up.
const FRAME_LENGTH = 48;
const FRAME_ERROR_CODE = 0;
const FRAME_RIP = 8;
const FRAME_CS = 16;
const FRAME_RSP = 32;

/** First instructions of page-fault handlers, and what they do. */
const FIRST_INSTRUCTIONS: readonly { readonly bytes: readonly number[]; readonly clears: bigint }[] = [
  { bytes: [0xf3, 0x0f, 0x1e, 0xfa], clears: 0n }, // endbr64
  { bytes: [0x0f, 0x01, 0xca], clears: RFLAGS_AC }, // clac
  { bytes: [0x0f, 0x1f, 0x00], clears: 0n }, // nop, where clac was patched away
  { bytes: [0x90], clears: 0n }, // nop
  { bytes: [0xfc], clears: RFLAGS_DF }, // cld
];
const LONGEST_FIRST = 4;

type SyscallVcpu = Pick<VcpuFd, "getMsrs" | "setHardwareBreakpoint">;

/** One vCPU's SYSCALL. */
export class SyscallFixup {
  readonly #vcpu: SyscallVcpu;
  /** False until this thread has had its first exit: another one may have run the vCPU until then. */
  #knowsMsrs = false;
  /** The MSRs as the guest has written them last. */
  #lstar = 0n;
  #star = 0n;
  #mask = 0n;
  /** Linear address of the armed breakpoint, 0 for none. */
  #armed = 0n;
  #idtBase = 0n;
  /** Of the page-fault gate, -1 while it is not known. */
  #gateGpa = -1;

  constructor(vcpu: SyscallVcpu) {
    this.#vcpu = vcpu;
  }

  /** The guest has written one of the MSRs that steer SYSCALL. */
  onMsrWrite(index: number, value: bigint): void {
    if (index === MSR_STAR) this.#star = value;
    else if (index === MSR_LSTAR) this.#lstar = value;
    else if (index === MSR_SYSCALL_MASK) this.#mask = value;
  }

  /** Moves the breakpoint to where the guest's page-fault gate leads now; cheap if it has not moved. */
  follow({ registers, memory }: FixupContext): void {
    if (!this.#knowsMsrs) this.#readMsrs();
    if (!registers.isLongMode || this.#lstar === 0n) return;
    if (registers.idtBase !== this.#idtBase || this.#gateGpa < 0) this.#findGate(registers, memory);
    if (this.#gateGpa < 0) return;
    const low = memory.readU64(this.#gateGpa);
    if ((Number(BigInt.asUintN(48, low) >> 32n) & GATE_PRESENT) === 0) return;
    const high = memory.readU64(this.#gateGpa + 8);
    // Offset bits 0-15, 16-31 and 32-63 of a 64-bit interrupt gate. Intel SDM vol. 3 §6.14.1.
    const handler = (low & 0xffffn) | ((low >> 32n) & 0xffff_0000n) | (BigInt.asUintN(32, high) << 32n);
    if (handler === this.#armed) return;
    this.#vcpu.setHardwareBreakpoint(handler);
    this.#armed = handler;
  }

  /** Answers KVM_EXIT_DEBUG; undefined if the breakpoint is not the reason. */
  apply(context: FixupContext): FixupName | undefined {
    const { registers } = context;
    if (this.#armed === 0n || registers.rip !== this.#armed) return undefined;
    if (registers.cpl === 0 && this.#finishSyscall(context)) return "syscall";
    return stepOver(context) ? "page_fault" : undefined;
  }

  #readMsrs(): void {
    const [star = 0n, lstar = 0n, mask = 0n] = this.#vcpu.getMsrs([MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK]);
    this.#star = star;
    this.#lstar = lstar;
    this.#mask = mask;
    this.#knowsMsrs = true;
  }

  #findGate(registers: GuestRegisters, memory: GuestMemory): void {
    this.#idtBase = registers.idtBase;
    this.#gateGpa = -1;
    const offset = PF_VECTOR * GATE_LENGTH;
    if (registers.idtLimit < offset + GATE_LENGTH - 1) return;
    try {
      const supervisor = { cr0: registers.cr0, cr3: registers.cr3, cr4: registers.cr4, rflags: RFLAGS_AC, cpl: 0 };
      const gpa = translate(memory, supervisor, registers.idtBase + BigInt(offset), "read");
      // A gate that lies over two pages cannot be at its natural alignment: no kernel does that.
      if (gpa % GATE_LENGTH === 0 && memory.contains(gpa, GATE_LENGTH)) this.#gateGpa = gpa;
    } catch (error) {
      // An interrupt table that is not mapped: no gate to watch, and nothing that could use it.
      if (!(error instanceof GuestFault)) throw error;
    }
  }

  /** True if the page fault was a SYSCALL, which is complete now. */
  #finishSyscall({ registers, memory }: FixupContext): boolean {
    const bytes = readLinear(memory, registers, registers.gpr(RSP), FRAME_LENGTH);
    const frame = new DataView(bytes.buffer);
    if ((frame.getBigUint64(FRAME_ERROR_CODE, true) & ~PF_FETCH) !== PF_PRESENT_USER) return false;
    if (frame.getBigUint64(FRAME_RIP, true) !== this.#lstar || registers.control("cr2") !== this.#lstar) return false;
    if ((frame.getUint16(FRAME_CS, true) & 3) !== 3) return false;
    // A program may jump to the entry itself, with any RCX and R11. Then this is a SYSCALL too,
    // but one that could have happened: RCX in user space, R11 without privileged flags.
    const returnAddress = registers.gpr(RCX);
    if (returnAddress >> BigInt(linearBits(registers.cr4) - 1) !== 0n) return false;
    const flags = (registers.gpr(R11) & ~RFLAGS_PRIVILEGED & ~RFLAGS_RF) | RFLAGS_IF | RFLAGS_FIXED;
    const selector = Number((this.#star >> 32n) & 0xfffcn);
    registers.setFlatSegment("cs", selector, 0);
    registers.setFlatSegment("ss", selector + 8, 0);
    registers.setGpr(R11, flags);
    registers.setGpr(RSP, frame.getBigUint64(FRAME_RSP, true));
    registers.rflags = (flags & ~this.#mask) | RFLAGS_FIXED;
    registers.rip = this.#lstar;
    return true;
  }
}

/** Does the handler's first instruction; false if it is one that is not known here. */
function stepOver({ registers, memory }: FixupContext): boolean {
  const bytes = readLinear(memory, registers, registers.rip, LONGEST_FIRST);
  const first = FIRST_INSTRUCTIONS.find((candidate) => candidate.bytes.every((byte, i) => byte === bytes[i]));
  if (first === undefined) return false;
  if (registers.cpl !== 0 && first.clears === RFLAGS_AC) throw new GuestFault(UD_VECTOR);
  registers.rflags &= ~first.clears;
  registers.rip += BigInt(first.bytes.length);
  return true;
}
