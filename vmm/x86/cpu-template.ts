// A CPU template: what a guest is shown of the processor, so that all processors of a set look alike to it. Pure.
import { CPU_TEMPLATE_NAMES, type CpuTemplateName } from "../config/defaults.js";
import type { CpuidEntry } from "./cpuid.js";
import { IA32_ARCH_CAPABILITIES, missingFeatures, registerOf, vendorOf, type CpuidRegister } from "./cpu-features.js";

/** Bits of a register that are given; the others are the host's. */
export interface CpuidFilter {
  readonly leaf: number;
  readonly index: number;
  readonly register: CpuidRegister;
  readonly mask: number;
  readonly value: number;
}

export interface MsrFilter {
  readonly index: number;
  readonly mask: bigint;
  readonly value: bigint;
}

export interface CpuTemplate {
  /** As the user has given it. */
  readonly name: string;
  /** The only vendor whose processors it is for; undefined if it does not say. */
  readonly vendor: string | undefined;
  readonly cpuid: readonly CpuidFilter[];
  readonly msrs: readonly MsrFilter[];
}

const XSAVE_LEAF = 0xd;
/** x87 and SSE state, and the header. Intel SDM vol. 1 §13.4. */
const XSAVE_LEGACY_BYTES = 576;

/** What `supported` looks like through the template. */
export function throughTemplate(supported: readonly CpuidEntry[], template: CpuTemplate): CpuidEntry[] {
  const filtered = supported.map((entry) => {
    let changed: CpuidEntry = entry;
    for (const { leaf, index, register, mask, value } of template.cpuid) {
      if (leaf !== entry.function || index !== entry.index) continue;
      changed = { ...changed, [register]: ((changed[register] & ~mask) | (value & mask)) >>> 0 };
    }
    return changed;
  });
  return withoutHiddenState(filtered);
}

/** Why the template is not for a host with such a processor; undefined if it is. */
export function templateProblem(supported: readonly CpuidEntry[], template: CpuTemplate): string | undefined {
  const vendor = vendorOf(supported);
  if (template.vendor !== undefined && template.vendor !== vendor) {
    return `is for processors of ${template.vendor}; this host's is ${vendor}`;
  }
  const missing = missingFeatures(throughTemplate(supported, template), supported);
  return missing.length === 0 ? undefined : `needs ${missing.join(", ")}, which this host does not have`;
}

/** Leaf 0xd describes no state that is hidden, and its sizes are those without it. */
function withoutHiddenState(entries: readonly CpuidEntry[]): CpuidEntry[] {
  const at = (index: number, register: CpuidRegister): number =>
    registerOf(entries, { leaf: XSAVE_LEAF, index, register });
  const user = BigInt(at(0, "eax")) | (BigInt(at(0, "edx")) << 32n);
  const supervisor = BigInt(at(1, "ecx")) | (BigInt(at(1, "edx")) << 32n);
  const isShown = ({ function: leaf, index }: CpuidEntry): boolean =>
    leaf !== XSAVE_LEAF || index < 2 || (((user | supervisor) >> BigInt(index)) & 1n) !== 0n;
  const shown = entries.filter(isShown);
  if (shown.length === entries.length) return shown;
  const size = shown
    .filter(({ function: leaf, index, ecx }) => leaf === XSAVE_LEAF && index >= 2 && (ecx & 1) === 0)
    .reduce((most, { eax, ebx }) => Math.max(most, eax + ebx), XSAVE_LEGACY_BYTES);
  return shown.map((entry) =>
    entry.function === XSAVE_LEAF && entry.index === 0
      ? { ...entry, ebx: Math.min(entry.ebx, size), ecx: size }
      : entry,
  );
}

// -- Templates by name: the published ones of Firecracker, after instance types of a cloud; each bit by its name --

const INTEL = "GenuineIntel";
const AMD = "AuthenticAMD";

function bitsOf(...bits: readonly number[]): number {
  return bits.reduce((mask, bit) => mask | (1 << bit), 0) >>> 0;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

function filter(
  leaf: number,
  register: CpuidRegister,
  { off = [], on = [], index = 0 }: { off?: readonly number[]; on?: readonly number[]; index?: number },
): CpuidFilter {
  return { leaf, index, register, mask: bitsOf(...off, ...on), value: bitsOf(...on) };
}

/** Common to all: what a Haswell Xeon and its successors have, without what some of them lack. */
const BASE: readonly CpuidFilter[] = [
  // Family 6, model 63, stepping 2, whatever it is.
  { leaf: 1, index: 0, register: "eax", mask: 0x0fff_3fff, value: 0x0003_06f2 },
  // dtes64 monitor ds_cpl vmx smx est tm2, cid sdbg, xtpr pdcm, dca
  filter(0x1, "ecx", { off: [...range(2, 8), 10, 11, 14, 15, 18] }),
  // pn, dts acpi, ss, tm ia64 pbe; mce mtrr
  filter(0x1, "edx", { off: [18, 21, 22, 27, 29, 30, 31], on: [7, 12] }),
  // sgx, hle, rtm cqm, mpx ... adx, avx512ifma ... avx512vl; erms
  filter(0x7, "ebx", { off: [2, 4, 11, 12, ...range(14, 19), ...range(21, 31)], on: [9] }),
  // avx512vbmi umip pku ospke, avx512_vbmi2, gfni ... avx512_bitalg, avx512_vpopcntdq, la57, rdpid, sgx_lc
  filter(0x7, "ecx", { off: [...range(1, 4), 6, ...range(8, 12), 14, 16, 22, 30] }),
  // avx512_4vnniw avx512_4fmaps fsrm, avx512_vp2intersect
  filter(0x7, "edx", { off: [2, 3, 4, 8] }),
  // State of MPX, AVX-512 and protection keys.
  filter(0xd, "eax", { off: [...range(3, 7), 9] }),
  // xsavec xgetbv1 xsaves
  filter(0xd, "eax", { off: [1, 2, 3], index: 1 }),
];
const WITHOUT_PREFETCH: readonly CpuidFilter[] = [
  // 3dnowprefetch, mwaitx
  filter(0x8000_0001, "ecx", { off: [8, 29] }),
  // pdpe1gb
  filter(0x8000_0001, "edx", { off: [26] }),
];
/** Intel and AMD have the same then. */
const WITHOUT_AMD: readonly CpuidFilter[] = [
  // sse4a misalignsse 3dnowprefetch, mwaitx
  filter(0x8000_0001, "ecx", { off: [6, 7, 8, 29] }),
  // mmxext mmx fxsr fxsr_opt pdpe1gb
  filter(0x8000_0001, "edx", { off: range(22, 26) }),
];
const WITHOUT_WBNOINVD = filter(0x8000_0008, "ebx", { off: [9] });

/** Of all bits, these are set, or these stay the host's. */
function capabilities(bits: readonly number[], are: "set" | "the-hosts"): MsrFilter {
  const all = 2n ** 64n - 1n;
  const named = bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
  return { index: IA32_ARCH_CAPABILITIES, mask: are === "set" ? all : all & ~named, value: are === "set" ? named : 0n };
}

const NAMED: Readonly<Record<CpuTemplateName, Omit<CpuTemplate, "name">>> = {
  T2: { vendor: INTEL, cpuid: [...BASE, ...WITHOUT_PREFETCH, WITHOUT_WBNOINVD], msrs: [] },
  T2S: {
    vendor: INTEL,
    cpuid: [...BASE, ...WITHOUT_PREFETCH, WITHOUT_WBNOINVD],
    msrs: [capabilities([2, 3, 6, 10, 11, 17, 19, 26, 27], "set")],
  },
  T2CL: {
    vendor: INTEL,
    cpuid: [...BASE, ...WITHOUT_AMD, WITHOUT_WBNOINVD],
    msrs: [capabilities([...range(0, 8), 13, 14, 15, 17, 19, 24, 26, 27, 28], "the-hosts")],
  },
  T2A: {
    vendor: AMD,
    // clzero, xsaveerptr, wbnoinvd; ibrs_preferred ibrs_same_mode
    cpuid: [...BASE, ...WITHOUT_AMD, filter(0x8000_0008, "ebx", { off: [0, 2, 9], on: [18, 19] })],
    msrs: [],
  },
};

/** Undefined for a name that is none. */
export function namedTemplate(name: string): CpuTemplate | undefined {
  const known = CPU_TEMPLATE_NAMES.find((candidate) => candidate === name);
  return known === undefined ? undefined : { name, ...NAMED[known] };
}
