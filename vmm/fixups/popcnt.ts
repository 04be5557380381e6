// POPCNT r, r/m of 16, 32 or 64 bits. Intel SDM vol. 2: ZF from the source, the other arithmetic
// flags cleared; a 32-bit result clears the register's upper half.
import { skip, type FixupContext, type InstructionFixup } from "./fixup.js";
import type { Instruction } from "./instruction.js";
import { readLinear } from "./linear-memory.js";

const ARITHMETIC_FLAGS = 0x8d5n; // OF, SF, ZF, AF, PF, CF
const RFLAGS_ZF = 1n << 6n;

function bitCount(value: bigint): bigint {
  let count = 0n;
  for (let rest = value; rest !== 0n; rest &= rest - 1n) count++;
  return count;
}

export const popcnt: InstructionFixup = {
  name: "popcnt",
  matches: ({ opcode, hasRep }) => opcode === 0x0fb8 && hasRep,
  apply(instruction: Instruction, context: FixupContext): void {
    const { registers, memory } = context;
    const size = instruction.rexW ? 8 : instruction.hasOperandSize ? 2 : 4;
    let source: bigint;
    if (instruction.memory === undefined) {
      source = registers.gpr(instruction.rm);
    } else {
      const bytes = new Uint8Array(8);
      bytes.set(readLinear(memory, registers, registers.linearAddress(instruction), size));
      source = new DataView(bytes.buffer).getBigUint64(0, true);
    }
    source = BigInt.asUintN(8 * size, source);
    const kept = size === 2 ? registers.gpr(instruction.reg) & ~0xffffn : 0n;
    registers.setGpr(instruction.reg, kept | bitCount(source));
    registers.rflags = (registers.rflags & ~ARITHMETIC_FLAGS) | (source === 0n ? RFLAGS_ZF : 0n);
    skip(context, instruction);
  },
};
