// The CPU template of what all of several hosts have. Pure.
import type { CpuidEntry } from "./cpuid.js";
import {
  FEATURE_REGISTERS,
  IA32_ARCH_CAPABILITIES,
  archCapabilityBits,
  registerOf,
  type FeatureRegister,
} from "./cpu-features.js";
import type { CpuidFilter, CpuTemplate, MsrFilter } from "./cpu-template.js";

export interface TemplateHost {
  readonly supported: readonly CpuidEntry[];
  readonly archCapabilities: bigint;
}

const ADDRESS_SIZES = { leaf: 0x8000_0008, index: 0, register: "eax" } as const;
/** Of physical and of linear addresses. */
const ADDRESS_BITS: readonly number[] = [0, 8];
const LEAF_7_EDX = { leaf: 7, index: 0, register: "edx" } as const;
const EDX_ARCH_CAPABILITIES = 1 << 29;
const CAPABILITIES = 64;

/** Of at least one host, all of one vendor. A bit that one lacks is off; so is one that none has, which a further one may have. */
export function commonTemplate(name: string, vendor: string, hosts: readonly TemplateHost[]): CpuTemplate {
  const features = FEATURE_REGISTERS.map((feature) => commonFeatures(feature, hosts));
  const sizes = narrowestAddresses(hosts);
  return {
    ...{ name, vendor, msrs: commonCapabilities(hosts) },
    cpuid: [...features, sizes].filter(({ mask }) => mask !== 0),
  };
}

function commonFeatures(feature: FeatureRegister, hosts: readonly TemplateHost[]): CpuidFilter {
  const { leaf, index, register, others } = feature;
  const common = hosts.reduce((bits, { supported }) => bits & registerOf(supported, feature), 0xffff_ffff);
  return { leaf, index, register, mask: (~common & ~others) >>> 0, value: 0 };
}

function narrowestAddresses(hosts: readonly TemplateHost[]): CpuidFilter {
  const sizes = hosts.map(({ supported }) => registerOf(supported, ADDRESS_SIZES)).filter((eax) => eax !== 0);
  if (sizes.length === 0) return { ...ADDRESS_SIZES, mask: 0, value: 0 };
  const value = ADDRESS_BITS.reduce(
    (all, shift) => all | (Math.min(...sizes.map((eax) => (eax >>> shift) & 0xff)) << shift),
    0,
  );
  return { ...ADDRESS_SIZES, mask: 0xffff, value };
}

/** What a processor can do, or is not weak at, if all say so; a weakness, if one does. */
function commonCapabilities(hosts: readonly TemplateHost[]): MsrFilter[] {
  const have = hosts.every(({ supported }) => (registerOf(supported, LEAF_7_EDX) & EDX_ARCH_CAPABILITIES) !== 0);
  if (!have) return [];
  const good = archCapabilityBits();
  let [mask, value] = [0n, 0n];
  for (let at = 0; at < CAPABILITIES; at++) {
    const bit = 1n << BigInt(at);
    const count = hosts.filter(({ archCapabilities }) => (archCapabilities & bit) !== 0n).length;
    const isGood = (good & bit) !== 0n;
    if (isGood ? count === hosts.length : count === 0) continue;
    mask |= bit;
    if (!isGood) value |= bit;
  }
  return mask === 0n ? [] : [{ index: IA32_ARCH_CAPABILITIES, mask, value }];
}
