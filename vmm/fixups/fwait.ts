// FWAIT: raises what an earlier x87 instruction has left pending, otherwise nothing.
// Intel SDM vol. 2, WAIT/FWAIT; vol. 1 §8.1.3 (status word, ES).
import { skip, type FixupContext, type InstructionFixup } from "./fixup.js";
import { GuestFault, MF_VECTOR, NM_VECTOR } from "./guest-fault.js";
import type { Instruction } from "./instruction.js";

const CR0_MP_TS = (1n << 1n) | (1n << 3n);
const FSW = 2;
const FSW_ES = 1 << 7;

export const fwait: InstructionFixup = {
  name: "fwait",
  matches: ({ opcode }) => opcode === 0x9b,
  apply(instruction: Instruction, context: FixupContext): void {
    const { registers, vcpu } = context;
    if ((registers.cr0 & CR0_MP_TS) === CR0_MP_TS) throw new GuestFault(NM_VECTOR);
    if ((vcpu.getXsave().getUint16(FSW, true) & FSW_ES) !== 0) throw new GuestFault(MF_VECTOR);
    skip(context, instruction);
  },
};
