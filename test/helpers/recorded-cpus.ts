// What KVM_GET_SUPPORTED_CPUID says on processors of several kinds, as far as it matters to a guest that moves.
import type { CpuidEntry } from "../../vmm/x86/cpuid.js";
import type { HostCpu } from "../../vmm/machine/host-cpu.js";

type Row = readonly [leaf: number, index: number, eax: number, ebx: number, ecx: number, edx: number];

function entries(rows: readonly Row[]): CpuidEntry[] {
  return rows.map(([leaf, index, eax, ebx, ecx, edx]) => ({
    ...{ function: leaf, index, flags: leaf === 4 || leaf === 7 || leaf === 0xd ? 1 : 0 },
    ...{ eax, ebx, ecx, edx },
  }));
}

const KVM: readonly Row[] = [
  [0x4000_0000, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
  [0x4000_0001, 0, 0x0100_7efb, 0, 0, 0],
];
const INTEL: readonly Row[] = [[0, 0, 0x16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]];

/** Xeon, Cascade Lake. */
const CASCADE_LAKE = entries([
  ...INTEL,
  [0x1, 0, 0x0005_0657, 0x0010_0800, 0xf7fa_3203, 0x0f8b_fbff],
  [0x7, 0, 1, 0xd19f_27eb, 0x818, 0xac00_0400],
  [0x7, 1, 0, 0, 0, 0],
  [0xd, 0, 0x2e7, 0xa88, 0xa88, 0],
  [0xd, 1, 0xf, 0x9c8, 0, 0],
  [0xd, 2, 0x100, 0x240, 0, 0],
  [0xd, 5, 0x40, 0x440, 0, 0],
  [0xd, 6, 0x200, 0x480, 0, 0],
  [0xd, 7, 0x400, 0x680, 0, 0],
  [0xd, 9, 0x8, 0xa80, 0, 0],
  ...KVM,
  [0x8000_0000, 0, 0x8000_0008, 0, 0, 0],
  [0x8000_0001, 0, 0, 0, 0x121, 0x2c10_0800],
  [0x8000_0008, 0, 0x302e, 0, 0, 0],
]);

/** Xeon, Broadwell: without AVX-512 and protection keys. */
const BROADWELL = entries([
  ...INTEL,
  [0x1, 0, 0x0004_06f1, 0x0010_0800, 0xf7fa_3203, 0x0f8b_fbff],
  [0x7, 0, 0, 0x001c_27ab, 0, 0x8c00_0400],
  [0xd, 0, 0x7, 0x340, 0x340, 0],
  [0xd, 1, 0x1, 0, 0, 0],
  [0xd, 2, 0x100, 0x240, 0, 0],
  ...KVM,
  [0x8000_0000, 0, 0x8000_0008, 0, 0, 0],
  [0x8000_0001, 0, 0, 0, 0x121, 0x2c10_0800],
  [0x8000_0008, 0, 0x302e, 0, 0, 0],
]);

/** EPYC, Milan. */
const MILAN = entries([
  [0, 0, 0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
  [0x1, 0, 0x00a0_0f11, 0x0010_0800, 0xf6d8_3203, 0x178b_fbff],
  [0x7, 0, 0, 0x219c_07a9, 0x0040_069c, 0x2000_0010],
  [0xd, 0, 0x207, 0x988, 0x988, 0],
  [0xd, 1, 0xf, 0x348, 0, 0],
  [0xd, 2, 0x100, 0x240, 0, 0],
  [0xd, 9, 0x8, 0x980, 0, 0],
  ...KVM,
  [0x8000_0000, 0, 0x8000_0021, 0, 0, 0],
  [0x8000_0001, 0, 0x00a0_0f11, 0, 0x0040_03f7, 0x2fd3_fbff],
  [0x8000_0008, 0, 0x3030, 0x111e_d205, 0, 0],
]);

function host(supported: readonly CpuidEntry[], others: Partial<HostCpu> = {}): HostCpu {
  return {
    ...{ supported, tscDeadline: true, canScaleTsc: true, xsaveBytes: 4096, archCapabilities: 0n },
    msrs: new Set([0x10, 0x10a, 0x174, 0x1a0, 0x277, 0x6e0, 0xc000_0080, 0xc000_0081]),
    ...others,
  };
}

export const RECORDED = {
  cascadeLake: host(CASCADE_LAKE, { archCapabilities: 0x0c0a_e06bn }),
  broadwell: host(BROADWELL, { canScaleTsc: false }),
  milan: host(MILAN),
};
