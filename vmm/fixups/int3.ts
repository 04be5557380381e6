// INT3 in kernel code: the software emulation does not know it, Linux patches its text with it.
// Intel SDM vol. 2, INT3: a trap, so the saved RIP is that of the next instruction.
import type { FixupContext, InstructionFixup } from "./fixup.js";
import { skip } from "./fixup.js";
import { BP_VECTOR, GuestFault } from "./guest-fault.js";
import type { Instruction } from "./instruction.js";

export const int3: InstructionFixup = {
  name: "int3",
  matches: ({ opcode }) => opcode === 0xcc,
  apply(instruction: Instruction, context: FixupContext): void {
    skip(context, instruction);
    throw new GuestFault(BP_VECTOR);
  },
};
