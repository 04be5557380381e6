// XSAVE, XSAVEOPT and XRSTOR in the standard format, through KVM_GET_XSAVE and KVM_SET_XSAVE, so
// that a kernel can keep every register that its programs use. The compacted format is refused
// to the guest on its command line. Intel SDM vol. 1 chapter 13, vol. 2 XSAVE and XRSTOR.
import { skip, type FixupContext, type InstructionFixup } from "./fixup.js";
import { GP_VECTOR, GuestFault, NM_VECTOR, UD_VECTOR } from "./guest-fault.js";
import { RAX, RDX } from "./guest-registers.js";
import { extension, type Instruction } from "./instruction.js";
import { probeWrite, readLinear, writeLinear } from "./linear-memory.js";

/** A state component in the standard format, CPUID leaf 0xD. */
export interface XsaveComponent {
  readonly index: number;
  /** `bytes`, from the start of the XSAVE area */
  readonly offset: number;
  /** `bytes` */
  readonly size: number;
}

const X87 = 1n << 0n;
const SSE = 1n << 1n;
const AVX = 1n << 2n;
const CR0_TS = 1n << 3n;
const CR4_OSXSAVE = 1n << 18n;

const FCW = 0;
const MXCSR = 24;
const MXCSR_LENGTH = 8;
const ST = 32;
const XMM = 160;
const LEGACY_END = 416;
const HEADER = 512;
const XCOMP_BV = HEADER + 8;
const HEADER_LENGTH = 64;
const AREA_MIN = HEADER + HEADER_LENGTH;
const ALIGNMENT = 63n;
const MXCSR_DEFAULT = 0x1f80;

const XSAVE = 4;
const XRSTOR = 5;
const XSAVEOPT = 6;

/** `components` are those from 2 on that the host has. */
export function xsave(components: readonly XsaveComponent[]): InstructionFixup {
  return {
    name: "xsave",
    matches(instruction): boolean {
      if (instruction.opcode !== 0x0fae || instruction.memory === undefined) return false;
      if (instruction.hasOperandSize || instruction.hasRep || instruction.hasRepne) return false;
      const operation = extension(instruction);
      return operation === XSAVE || operation === XRSTOR || operation === XSAVEOPT;
    },
    apply(instruction: Instruction, context: FixupContext): void {
      const { registers } = context;
      if ((registers.cr4 & CR4_OSXSAVE) === 0n || instruction.hasLock) throw new GuestFault(UD_VECTOR);
      if ((registers.cr0 & CR0_TS) !== 0n) throw new GuestFault(NM_VECTOR);
      const linear = registers.linearAddress(instruction);
      if ((linear & ALIGNMENT) !== 0n) throw new GuestFault(GP_VECTOR, 0);
      const wanted = (BigInt.asUintN(32, registers.gpr(RDX)) << 32n) | BigInt.asUintN(32, registers.gpr(RAX));
      const xcr0 = context.vcpu.getXcr0();
      if (extension(instruction) === XRSTOR) restore(context, linear, wanted & xcr0, xcr0, components);
      else save(context, linear, wanted & xcr0, components);
      skip(context, instruction);
    },
  };
}

function areaLength(mask: bigint, components: readonly XsaveComponent[]): number {
  return components.reduce(
    (length, { index, offset, size }) => ((mask >> BigInt(index)) & 1n ? Math.max(length, offset + size) : length),
    AREA_MIN,
  );
}

/** Byte ranges of the area that belong to the components in `mask`, MXCSR left out. */
function ranges(mask: bigint, components: readonly XsaveComponent[]): [from: number, to: number][] {
  const found: [number, number][] = [];
  if ((mask & X87) !== 0n) found.push([FCW, MXCSR], [ST, XMM]);
  if ((mask & SSE) !== 0n) found.push([XMM, LEGACY_END]);
  for (const { index, offset, size } of components) {
    if ((mask >> BigInt(index)) & 1n) found.push([offset, offset + size]);
  }
  return found;
}

function save(context: FixupContext, linear: bigint, mask: bigint, components: readonly XsaveComponent[]): void {
  const { vcpu, memory, registers } = context;
  const state = vcpu.getXsave();
  const from = new Uint8Array(state.buffer);
  const length = areaLength(mask, components);
  // The instruction writes: it must not fault as a read.
  probeWrite(memory, registers, linear, length);
  const area = readLinear(memory, registers, linear, length);
  for (const [start, end] of ranges(mask, components)) area.set(from.subarray(start, end), start);
  if ((mask & (SSE | AVX)) !== 0n) area.set(from.subarray(MXCSR, MXCSR + MXCSR_LENGTH), MXCSR);
  const data = new DataView(area.buffer);
  const inUse = state.getBigUint64(HEADER, true) & mask;
  data.setBigUint64(HEADER, (data.getBigUint64(HEADER, true) & ~mask) | inUse, true);
  writeLinear(memory, registers, linear, area);
}

function restore(
  context: FixupContext,
  linear: bigint,
  mask: bigint,
  xcr0: bigint,
  components: readonly XsaveComponent[],
): void {
  const { vcpu, memory, registers } = context;
  // One copy of everything: what has been checked is what is used.
  const area = readLinear(memory, registers, linear, areaLength(mask, components));
  const data = new DataView(area.buffer);
  const present = data.getBigUint64(HEADER, true);
  const isStandard = data.getBigUint64(XCOMP_BV, true) === 0n && data.getBigUint64(XCOMP_BV + 8, true) === 0n;
  if ((present & ~xcr0) !== 0n || !isStandard) throw new GuestFault(GP_VECTOR, 0);

  const state = vcpu.getXsave();
  const to = new Uint8Array(state.buffer);
  for (const [start, end] of ranges(mask & present, components)) to.set(area.subarray(start, end), start);
  let inUse = (state.getBigUint64(HEADER, true) & ~mask) | (mask & present);
  if ((mask & (SSE | AVX)) !== 0n) {
    const mxcsr = data.getUint32(MXCSR, true);
    const allowed = state.getUint32(MXCSR + 4, true);
    if ((mxcsr & ~allowed) !== 0) throw new GuestFault(GP_VECTOR, 0);
    state.setUint32(MXCSR, mxcsr, true);
    // KVM takes MXCSR only along with SSE state: the initial XMM registers are all zero.
    if (mxcsr !== MXCSR_DEFAULT && (inUse & SSE) === 0n) {
      to.fill(0, XMM, LEGACY_END);
      inUse |= SSE;
    }
  }
  state.setBigUint64(HEADER, inUse, true);
  state.setBigUint64(XCOMP_BV, 0n, true);
  vcpu.setXsave(state);
}
