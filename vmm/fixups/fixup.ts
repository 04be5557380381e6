// What a fix-up is: one instruction that the host cannot run for a guest's kernel, done by hand.
import type { GuestMemory } from "../../devices/contracts.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import type { GuestRegisters } from "./guest-registers.js";
import type { Instruction } from "./instruction.js";

/** Every fix-up by name, in the order of their counters. */
export const FIXUP_NAMES = [
  "int3",
  "smap",
  "cmpxchg16b",
  "popcnt",
  "xsave",
  "xcr",
  "fwait",
  "syscall",
  "page_fault",
] as const;
export type FixupName = (typeof FIXUP_NAMES)[number];

/** The stopped vCPU and its memory. */
export interface FixupContext {
  readonly vcpu: Pick<VcpuFd, "getXsave" | "setXsave" | "getXcr0" | "setXcr0">;
  readonly registers: GuestRegisters;
  readonly memory: GuestMemory;
}

/** Replaces one emulated instruction. */
export interface InstructionFixup {
  readonly name: FixupName;
  /** True if this unit knows the instruction. */
  matches(instruction: Instruction): boolean;
  /**
   * Does what the processor would, RIP included. Throws GuestFault for the exception that the
   * processor would raise; nothing has changed then.
   */
  apply(instruction: Instruction, context: FixupContext): void;
}

/** Moves RIP behind the instruction. */
export function skip({ registers }: FixupContext, instruction: Instruction): void {
  registers.rip += BigInt(instruction.length);
}
