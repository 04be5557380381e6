// Instructions of kernels that neither a software KVM nor a fix-up can do: their
// names, and the word on the kernel's command line that keeps a kernel from using them.
import { clearCpuid } from "../config/software-kvm.js";
import { decode, type Instruction } from "./instruction.js";

interface Known {
  readonly name: string;
  /** Keeps Linux from using it, where something does: a word of its own, or a feature that CPUID would name. */
  readonly word?: string;
  readonly feature?: number;
}

// Linux, arch/x86/include/asm/cpufeatures.h: word * 32 + bit.
const RDTSCP = 1 * 32 + 27;
const SSE4_2 = 4 * 32 + 20;
const MOVBE = 4 * 32 + 22;
const AES = 4 * 32 + 25;
const AVX = 4 * 32 + 28;
const AVX512F = 9 * 32 + 16;

const GROUP_0F01 = new Map<number, Known>([
  [0xee, { name: "RDPKRU", word: "nopku" }],
  [0xef, { name: "WRPKRU", word: "nopku" }],
  [0xf9, { name: "RDTSCP", feature: RDTSCP }],
]);

/** The third byte. */
const MAP_0F38 = new Map<number, Known>([
  [0x82, { name: "INVPCID", word: "noinvpcid" }],
  [0xdb, { name: "an AES instruction", feature: AES }],
  [0xdc, { name: "an AES instruction", feature: AES }],
  [0xdd, { name: "an AES instruction", feature: AES }],
  [0xde, { name: "an AES instruction", feature: AES }],
  [0xdf, { name: "an AES instruction", feature: AES }],
]);

const BY_OPCODE = new Map<number, Known>([
  [0x0f00, { name: "VERW or another of group 6", word: "mitigations=off" }],
  // Refused already, and used all the same: software-kvm.ts.
  [0x0f03, { name: "LSL" }],
  [0x0fc7, { name: "XSAVEC, XSAVES, XRSTORS or another of group 9" }],
  [0x0fae, { name: "LDMXCSR or another of group 15" }],
  [0x0f38, { name: "a three-byte instruction of the 0F 38 map" }],
  [0x0f3a, { name: "a three-byte instruction of the 0F 3A map" }],
  [0xc4, { name: "an AVX instruction (VEX)", feature: AVX }],
  [0xc5, { name: "an AVX instruction (VEX)", feature: AVX }],
  [0x62, { name: "an AVX-512 instruction (EVEX)", feature: AVX512F }],
]);

/** The instruction's name as far as it is known, and what to do about it. */
export function nameUnemulated(bytes: Uint8Array): { name: string | undefined; cure: string } {
  const known = find(decode(bytes));
  // The kernel heeds the last clearcpuid= alone: one that says only this would take ours back.
  const word = known?.feature === undefined ? known?.word : clearCpuid(known.feature);
  const refuse = word === undefined ? "" : `refuse it to the kernel (add ${word} to --cmdline), or `;
  return { name: known?.name, cure: `${refuse}boot where kernel code need not be emulated: --accel lab` };
}

function find(instruction: Instruction | undefined): Known | undefined {
  if (instruction === undefined) return undefined;
  const { opcode, modrm = 0, hasRepne } = instruction;
  if (opcode === 0x0f01) return GROUP_0F01.get(modrm);
  if (opcode !== 0x0f38) return BY_OPCODE.get(opcode);
  if (modrm === 0xf0 || modrm === 0xf1) {
    return hasRepne ? { name: "CRC32", feature: SSE4_2 } : { name: "MOVBE", feature: MOVBE };
  }
  return MAP_0F38.get(modrm) ?? BY_OPCODE.get(opcode);
}
