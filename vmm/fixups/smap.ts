// CLAC and STAC: clear and set RFLAGS.AC around accesses to user memory. Intel SDM vol. 2.
import { skip, type FixupContext, type InstructionFixup } from "./fixup.js";
import { GuestFault, UD_VECTOR } from "./guest-fault.js";
import type { Instruction } from "./instruction.js";

const CLAC = 0xca;
const STAC = 0xcb;
const RFLAGS_AC = 1n << 18n;

export const smap: InstructionFixup = {
  name: "smap",
  matches: ({ opcode, modrm }) => opcode === 0x0f01 && (modrm === CLAC || modrm === STAC),
  apply(instruction: Instruction, context: FixupContext): void {
    const { registers } = context;
    if (registers.cpl !== 0 || instruction.hasLock) throw new GuestFault(UD_VECTOR);
    const { rflags } = registers;
    registers.rflags = instruction.modrm === STAC ? rflags | RFLAGS_AC : rflags & ~RFLAGS_AC;
    skip(context, instruction);
  },
};
