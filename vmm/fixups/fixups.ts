// Applies the fix-ups of one vCPU: asked for exits that a software KVM makes where hardware
// would have gone on. A hardware KVM never gets here: the probe found nothing to do.
import type { GuestMemory, SharedWords } from "../../devices/contracts.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import { KVM_EXIT_DEBUG, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_X86_WRMSR, kvm_run } from "../sys/kvm-abi.js";
import { failedInstruction } from "./failed-instruction.js";
import { cmpxchg16b } from "./cmpxchg16b.js";
import { FIXUP_NAMES, type FixupContext, type FixupName, type InstructionFixup } from "./fixup.js";
import { GuestFault } from "./guest-fault.js";
import { GuestRegisters } from "./guest-registers.js";
import { fwait } from "./fwait.js";
import { int3 } from "./int3.js";
import { decode } from "./instruction.js";
import { popcnt } from "./popcnt.js";
import type { Quirks } from "./quirks.js";
import { smap } from "./smap.js";
import { SyscallFixup } from "./syscall.js";
import { xcr } from "./xcr.js";
import { xsave } from "./xsave.js";

/** What the fix-ups use of a vCPU. */
export type FixupVcpu = FixupContext["vcpu"] &
  Pick<VcpuFd, "run" | "getMsrs" | "setHardwareBreakpoint" | "trySetMsr" | "injectException">;

export class Fixups {
  readonly #vcpu: FixupVcpu;
  readonly #context: FixupContext;
  readonly #units: readonly InstructionFixup[];
  readonly #syscall: SyscallFixup | undefined;
  readonly #counters: SharedWords;

  /** `counters` has a word for each of FIXUP_NAMES; `lockWords[lockIndex]` is one lock of the VM. */
  constructor(
    vcpu: FixupVcpu,
    memory: GuestMemory,
    quirks: Quirks,
    counters: SharedWords,
    lockWords: SharedWords,
    lockIndex: number,
  ) {
    this.#vcpu = vcpu;
    this.#context = { vcpu, memory, registers: new GuestRegisters(vcpu.run) };
    const units = [xsave(quirks.xsaveComponents), smap, int3, cmpxchg16b(lockWords, lockIndex), popcnt, xcr, fwait];
    this.#units = units.filter(({ name }) => quirks.missing.includes(name));
    this.#syscall = quirks.syscallStaysInUserMode ? new SyscallFixup(vcpu) : undefined;
    this.#counters = counters;
  }

  /** Call at every exit. */
  observe(): void {
    this.#syscall?.follow(this.#context);
  }

  /** Answers the exit; false if no fix-up knows the instruction. */
  answer(reason: number): boolean {
    try {
      return this.#apply(reason);
    } catch (error) {
      if (!(error instanceof GuestFault)) throw error;
      this.#inject(error);
      return true;
    }
  }

  #apply(reason: number): boolean {
    switch (reason) {
      case KVM_EXIT_INTERNAL_ERROR:
        return this.#emulate();
      case KVM_EXIT_DEBUG:
        return this.#answerBreakpoint();
      case KVM_EXIT_X86_WRMSR:
        this.#writeMsr();
        return true;
      default:
        return false;
    }
  }

  #emulate(): boolean {
    if (!this.#context.registers.isLongMode) return false;
    const instruction = decode(failedInstruction(this.#vcpu));
    if (instruction === undefined) return false;
    const unit = this.#units.find((candidate) => candidate.matches(instruction));
    if (unit === undefined) return false;
    // Counted also when it ends in an exception: INT3 always does.
    this.#count(unit.name);
    unit.apply(instruction, this.#context);
    return true;
  }

  #answerBreakpoint(): boolean {
    const name = this.#syscall?.apply(this.#context);
    if (name === undefined) return false;
    this.#count(name);
    return true;
  }

  /** The MSR filter has stopped a write: it is done here, so that the value is known. */
  #writeMsr(): void {
    const { run } = this.#vcpu;
    const index = run.loadU32(kvm_run.msr_index);
    const value = run.loadU64(kvm_run.msr_data);
    const isAccepted = this.#vcpu.trySetMsr(index, value);
    // A nonzero error is #GP for the guest. KVM api.rst §5, KVM_EXIT_X86_WRMSR.
    run.store(kvm_run.msr_error, 1, isAccepted ? 0 : 1);
    if (isAccepted) this.#syscall?.onMsrWrite(index, value);
  }

  #count(name: FixupName): void {
    const index = FIXUP_NAMES.indexOf(name);
    this.#counters[index] = ((this.#counters[index] ?? 0) + 1) | 0;
  }

  #inject({ vector, errorCode, address }: GuestFault): void {
    if (address !== undefined) this.#context.registers.setControl("cr2", address);
    this.#vcpu.injectException(vector, errorCode);
  }
}
