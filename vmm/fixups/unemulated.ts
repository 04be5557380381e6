// Instructions of kernels that neither a software KVM nor a fix-up can do: their
// names, and the word on the kernel's command line that keeps a kernel from using them.
import { decode } from "./instruction.js";

interface Known {
  readonly name: string;
  /** Keeps Linux from using it, where something does. */
  readonly word?: string;
}

const GROUP_0F01 = new Map<number, Known>([
  [0xee, { name: "RDPKRU", word: "nopku" }],
  [0xef, { name: "WRPKRU", word: "nopku" }],
  [0xf9, { name: "RDTSCP", word: "clearcpuid=59" }],
]);

const BY_OPCODE = new Map<number, Known>([
  [0x0f00, { name: "VERW or another of group 6", word: "mitigations=off" }],
  [0x0f03, { name: "LSL", word: "nofsgsbase" }],
  [0x0fc7, { name: "XSAVEC, XSAVES, XRSTORS or another of group 9", word: "clearcpuid=321,323" }],
  [0x0fae, { name: "LDMXCSR or another of group 15" }],
  [0x0f38, { name: "a three-byte instruction of the 0F 38 map (AES, CRC32, INVPCID)", word: "noinvpcid" }],
  [0x0f3a, { name: "a three-byte instruction of the 0F 3A map" }],
  [0xc4, { name: "an AVX instruction (VEX)", word: "clearcpuid=156" }],
  [0xc5, { name: "an AVX instruction (VEX)", word: "clearcpuid=156" }],
  [0x62, { name: "an AVX-512 instruction (EVEX)", word: "clearcpuid=272" }],
]);

/** The instruction's name as far as it is known, and what to do about it. */
export function nameUnemulated(bytes: Uint8Array): { name: string | undefined; cure: string } {
  const instruction = decode(bytes);
  const opcode = instruction?.opcode ?? -1;
  const known = opcode === 0x0f01 ? GROUP_0F01.get(instruction?.modrm ?? 0) : BY_OPCODE.get(opcode);
  const refuse = known?.word === undefined ? "" : `refuse it to the kernel (--cmdline ${known.word}), or `;
  return { name: known?.name, cure: `${refuse}boot where kernel code need not be emulated: --accel lab` };
}
