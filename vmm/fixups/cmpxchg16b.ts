// CMPXCHG16B m128: compares RDX:RAX, stores RCX:RBX or loads what was there. Intel SDM vol. 2.
// Atomic against the other vCPUs? Two 64-bit halves cannot be exchanged as one from here, so the
// other vCPUs' own CMPXCHG16B, which come here too, are kept out by one lock of the VM. A plain
// store from another vCPU can slip between; kernels use this instruction on both sides.
import { lock, unlock } from "../../devices/lock.js";
import type { SharedWords } from "../../devices/contracts.js";
import { skip, type FixupContext, type InstructionFixup } from "./fixup.js";
import { GP_VECTOR, GuestFault, UD_VECTOR } from "./guest-fault.js";
import { RAX, RBX, RCX, RDX } from "./guest-registers.js";
import { extension, type Instruction } from "./instruction.js";
import { probeWrite, readLinear, writeLinear } from "./linear-memory.js";

const RFLAGS_ZF = 1n << 6n;
const LENGTH = 16;

/** `words[index]` is the VM's lock for this instruction. */
export function cmpxchg16b(words: SharedWords, index: number): InstructionFixup {
  return {
    name: "cmpxchg16b",
    matches: (instruction) => instruction.opcode === 0x0fc7 && extension(instruction) === 1 && instruction.rexW,
    apply(instruction: Instruction, context: FixupContext): void {
      const { registers, memory } = context;
      if (instruction.memory === undefined) throw new GuestFault(UD_VECTOR);
      const linear = registers.linearAddress(instruction);
      if ((linear & 15n) !== 0n) throw new GuestFault(GP_VECTOR, 0);
      // A write in any case: the processor checks for it before it compares.
      probeWrite(memory, registers, linear, LENGTH);
      lock(words, index);
      try {
        const bytes = readLinear(memory, registers, linear, LENGTH);
        const data = new DataView(bytes.buffer);
        const low = data.getBigUint64(0, true);
        const high = data.getBigUint64(8, true);
        if (low === registers.gpr(RAX) && high === registers.gpr(RDX)) {
          data.setBigUint64(0, registers.gpr(RBX), true);
          data.setBigUint64(8, registers.gpr(RCX), true);
          writeLinear(memory, registers, linear, bytes);
          registers.rflags |= RFLAGS_ZF;
        } else {
          registers.setGpr(RAX, low);
          registers.setGpr(RDX, high);
          registers.rflags &= ~RFLAGS_ZF;
        }
      } finally {
        unlock(words, index);
      }
      skip(context, instruction);
    },
  };
}
