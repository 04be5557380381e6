// XGETBV and XSETBV: which state components XSAVE handles. Intel SDM vol. 2.
import { KvmIoctlError } from "../errors.js";
import { skip, type FixupContext, type InstructionFixup } from "./fixup.js";
import { GP_VECTOR, GuestFault, UD_VECTOR } from "./guest-fault.js";
import { RAX, RCX, RDX } from "./guest-registers.js";
import type { Instruction } from "./instruction.js";

const XGETBV = 0xd0;
const XSETBV = 0xd1;
const CR4_OSXSAVE = 1n << 18n;
const XINUSE = 1n;
const XSTATE_BV = 512;

export const xcr: InstructionFixup = {
  name: "xcr",
  matches: ({ opcode, modrm }) => opcode === 0x0f01 && (modrm === XGETBV || modrm === XSETBV),
  apply(instruction: Instruction, context: FixupContext): void {
    const { registers, vcpu } = context;
    if ((registers.cr4 & CR4_OSXSAVE) === 0n || instruction.hasLock) throw new GuestFault(UD_VECTOR);
    const index = BigInt.asUintN(32, registers.gpr(RCX));
    if (instruction.modrm === XGETBV) {
      if (index > XINUSE) throw new GuestFault(GP_VECTOR, 0);
      let value = vcpu.getXcr0();
      if (index === XINUSE) value &= vcpu.getXsave().getBigUint64(XSTATE_BV, true);
      registers.setGpr(RAX, BigInt.asUintN(32, value));
      registers.setGpr(RDX, value >> 32n);
    } else {
      const value = (BigInt.asUintN(32, registers.gpr(RDX)) << 32n) | BigInt.asUintN(32, registers.gpr(RAX));
      if (registers.cpl !== 0 || index !== 0n) throw new GuestFault(GP_VECTOR, 0);
      try {
        vcpu.setXcr0(value);
      } catch (error) {
        // KVM checks the combination of bits as the processor would.
        if (error instanceof KvmIoctlError && error.errnoName === "EINVAL") throw new GuestFault(GP_VECTOR, 0);
        throw error;
      }
    }
    skip(context, instruction);
  },
};
