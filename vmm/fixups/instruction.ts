// Decodes the few instructions that a software KVM cannot emulate: prefixes, REX, opcode, ModRM
// and the memory operand. 64-bit mode only. Intel SDM vol. 2 chapter 2.

/** Opcode as it is written: 0xcc, or 0x0fae for the two-byte map. */
export interface Instruction {
  readonly length: number;
  readonly opcode: number;
  readonly hasRep: boolean;
  readonly hasRepne: boolean;
  readonly hasOperandSize: boolean;
  readonly hasAddressSize: boolean;
  readonly hasLock: boolean;
  readonly rexW: boolean;
  /** "fs" or "gs" override; the others have no base in 64-bit mode. */
  readonly segment: "fs" | "gs" | undefined;
  /** The raw byte, undefined for opcodes without one. */
  readonly modrm: number | undefined;
  /** Register field with REX.R. */
  readonly reg: number;
  /** Register that r/m names, with REX.B; only if `memory` is undefined. */
  readonly rm: number;
  readonly memory: MemoryOperand | undefined;
}

export interface MemoryOperand {
  /** Register number, "rip", or undefined for none. */
  readonly base: number | "rip" | undefined;
  readonly index: number | undefined;
  readonly scale: 1 | 2 | 4 | 8;
  readonly displacement: bigint;
}

const LONGEST = 15;
const ESCAPE = 0x0f;

/** One-byte opcodes without ModRM that are known here. */
const WITHOUT_MODRM: ReadonlySet<number> = new Set([0x9b, 0xcc]);

/** Undefined for bytes that end early or are too long. */
export function decode(bytes: Uint8Array): Instruction | undefined {
  let at = 0;
  let hasRep = false;
  let hasRepne = false;
  let hasOperandSize = false;
  let hasAddressSize = false;
  let hasLock = false;
  let segment: "fs" | "gs" | undefined;
  prefixes: for (; ; at++) {
    switch (bytes[at]) {
      case 0xf3:
        hasRep = true;
        hasRepne = false;
        break;
      case 0xf2:
        hasRepne = true;
        hasRep = false;
        break;
      case 0x66:
        hasOperandSize = true;
        break;
      case 0x67:
        hasAddressSize = true;
        break;
      case 0xf0:
        hasLock = true;
        break;
      case 0x64:
        segment = "fs";
        break;
      case 0x65:
        segment = "gs";
        break;
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
        break;
      default:
        break prefixes;
    }
  }
  let rex = 0;
  if (((bytes[at] ?? 0) & 0xf0) === 0x40) rex = bytes[at++] ?? 0;
  let opcode = bytes[at++];
  if (opcode === undefined) return undefined;
  if (opcode === ESCAPE) {
    const second = bytes[at++];
    if (second === undefined) return undefined;
    opcode = (ESCAPE << 8) | second;
  }
  const common = { opcode, hasRep, hasRepne, hasOperandSize, hasAddressSize, hasLock, segment, rexW: (rex & 8) !== 0 };
  if (WITHOUT_MODRM.has(opcode)) return { ...common, length: at, modrm: undefined, reg: 0, rm: 0, memory: undefined };
  const operands = decodeModrm(bytes, at, rex);
  if (operands === undefined || operands.length > LONGEST) return undefined;
  return { ...common, ...operands };
}

type Operands = Pick<Instruction, "length" | "modrm" | "reg" | "rm" | "memory">;

function decodeModrm(bytes: Uint8Array, start: number, rex: number): Operands | undefined {
  let at = start;
  const modrm = bytes[at++];
  if (modrm === undefined) return undefined;
  const mod = modrm >> 6;
  const reg = ((modrm >> 3) & 7) | ((rex & 4) << 1);
  const low = modrm & 7;
  const rm = low | ((rex & 1) << 3);
  if (mod === 3) return { length: at, modrm, reg, rm, memory: undefined };

  let base: number | "rip" | undefined = rm;
  let index: number | undefined;
  let scale: 1 | 2 | 4 | 8 = 1;
  let displacementSize = mod === 1 ? 1 : mod === 2 ? 4 : 0;
  if (low === 4) {
    const sib = bytes[at++];
    if (sib === undefined) return undefined;
    scale = ([1, 2, 4, 8] as const)[sib >> 6] ?? 1;
    const indexNumber = ((sib >> 3) & 7) | ((rex & 2) << 2);
    index = indexNumber === 4 ? undefined : indexNumber;
    base = (sib & 7) | ((rex & 1) << 3);
    if ((sib & 7) === 5 && mod === 0) {
      base = undefined;
      displacementSize = 4;
    }
  } else if (low === 5 && mod === 0) {
    base = "rip";
    displacementSize = 4;
  }
  if (at + displacementSize > bytes.length) return undefined;
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const displacement = displacementSize === 1 ? data.getInt8(at) : displacementSize === 4 ? data.getInt32(at, true) : 0;
  at += displacementSize;
  return { length: at, modrm, reg, rm, memory: { base, index, scale, displacement: BigInt(displacement) } };
}

/** The ModRM reg field without REX: the opcode extension of a group, as in "0F AE /4". */
export function extension(instruction: Instruction): number {
  return ((instruction.modrm ?? 0) >> 3) & 7;
}
