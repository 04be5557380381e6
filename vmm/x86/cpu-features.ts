// CPUID's feature bits by name, as Linux names them in /proc/cpuinfo where it does. Intel SDM vol. 2 CPUID; AMD APM
// vol. 3 appendix E; Documentation/virt/kvm/x86/cpuid.rst.
import type { CpuidEntry } from "./cpuid.js";

export type CpuidRegister = "eax" | "ebx" | "ecx" | "edx";

/** A register each of whose bits says that the processor can do something. */
export interface FeatureRegister {
  readonly leaf: number;
  readonly index: number;
  readonly register: CpuidRegister;
  /** From bit 0 on, between spaces; "-" has no name. */
  readonly names: string;
  /** Bits that are no feature: they say what the kernel has turned on, that something is lacking, or are a number. */
  readonly others: number;
}

function register(
  leaf: number,
  name: CpuidRegister,
  names: string,
  { index = 0, others = [] }: { index?: number; others?: readonly number[] } = {},
): FeatureRegister {
  const mask = others.reduce((bits, bit) => bits | (1 << bit), 0) >>> 0;
  return { leaf, index, register: name, names, others: mask };
}

const OSXSAVE = 27;
const OSPKE = 4;
const FDP_EXCPTN_ONLY = 6;
const ZERO_FCS_FDS = 13;
/** How wide BNDLDX and BNDSTX count. */
const MAWAU = [17, 18, 19, 20, 21];
const RTM_ALWAYS_ABORT = 11;
const TSX_FORCE_ABORT = 13;
const EFER_LMSLE_UNSUPPORTED = 20;
/** What a kernel had best do, and what it need not: CPU templates set them where KVM does not. */
const IBRS_HINTS = [16, 17, 18, 19];

export const FEATURE_REGISTERS: readonly FeatureRegister[] = [
  register(
    0x1,
    "ecx",
    `pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic
     movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor`,
    { others: [OSXSAVE] },
  ),
  register(
    0x1,
    "edx",
    `fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss
     ht tm ia64 pbe`,
  ),
  register(0x6, "eax", "dtherm ida arat"),
  register(
    0x7,
    "ebx",
    `fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f
     avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`,
    { others: [FDP_EXCPTN_ONLY, ZERO_FCS_FDS] },
  ),
  register(
    0x7,
    "ecx",
    `prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme
     avx512_vpopcntdq - la57 - - - - - rdpid key_locker bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks`,
    { others: [OSPKE, ...MAWAU] },
  ),
  register(
    0x7,
    "edx",
    `- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort -
     tsx_force_abort serialize hybrid tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl
     intel_stibp flush_l1d arch_capabilities core_capabilities ssbd`,
    { others: [RTM_ALWAYS_ABORT, TSX_FORCE_ABORT] },
  ),
  register(
    0x7,
    "eax",
    `sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrc - - - - fred lkgs wrmsrns
     nmi_src amx_fp16 hreset avx_ifma - - lam msrlist`,
    { index: 1 },
  ),
  register(
    0x7,
    "edx",
    "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchi - - - cet_sss avx10",
    { index: 1 },
  ),
  register(0x7, "edx", "intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no", { index: 2 }),
  register(
    0xd,
    "eax",
    `x87-state sse-state avx-state bndregs-state bndcsr-state avx512-opmask-state avx512-zmm-state avx512-hi16-zmm-state -
     pkru-state - - - - - - - amx-tilecfg-state amx-tiledata-state`,
  ),
  register(0xd, "edx", ""),
  register(0xd, "eax", "xsaveopt xsavec xgetbv1 xsaves xfd", { index: 1 }),
  register(0xd, "ecx", "- - - - - - - - pt-state - pasid-state cet-user-state cet-kernel-state", { index: 1 }),
  register(
    0x4000_0001,
    "eax",
    `kvmclock kvm-nopiodelay kvm-mmu kvmclock2 kvm-asyncpf kvm-steal-time kvm-pv-eoi kvm-pv-unhalt - kvm-pv-tlb-flush
     kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id
     kvm-hc-map-gpa-range kvm-migration-control - - - - - - kvmclock-stable`,
  ),
  register(
    0x8000_0001,
    "ecx",
    `lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce -
     nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx`,
  ),
  // AMD repeats most of leaf 1 here.
  register(
    0x8000_0001,
    "edx",
    `fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - mp nx - mmxext mmx fxsr fxsr_opt
     pdpe1gb rdtscp - lm 3dnowext 3dnow`,
  ),
  register(0x8000_0007, "edx", "- - - - - - - - constant_tsc cpb aperfmperf"),
  register(
    0x8000_0008,
    "ebx",
    `clzero irperf xsaveerptr - rdpru - mba - - wbnoinvd - - ibpb - ibrs stibp ibrs_always_on stibp_always_on ibrs_preferred
     ibrs_same_mode efer_lmsle_unsupported - - ppin amd_ssbd virt_ssbd ssb_no cppc psfd btc_no ibpb_ret`,
    { others: [EFER_LMSLE_UNSUPPORTED, ...IBRS_HINTS] },
  ),
  register(
    0x8000_000a,
    "edx",
    `npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - pfthreshold avic -
     v_vmsave_vmload vgif`,
  ),
  register(
    0x8000_0021,
    "eax",
    `no_nested_data_bp - lfence_rdtsc - - verw_clear null_sel_clr_base - autoibrs no_smm_ctl_msr fsrs fsrc - - - - - - - - - - - -
     - - - sbpb ibpb_brtype srso_no srso_user_kernel_no`,
  ),
];

/** Leaf 0xd's, whose bits are 32 to 63 of XCR0. */
export const XCR0_LOW = { leaf: 0xd, index: 0, register: "eax" } as const;

/** The register's value, 0 without such a leaf; of several entries, whatever any of them says. */
export function registerOf(
  entries: readonly CpuidEntry[],
  { leaf, index, register: name }: Pick<FeatureRegister, "leaf" | "index" | "register">,
): number {
  let value = 0;
  for (const entry of entries) if (entry.function === leaf && entry.index === index) value |= entry[name];
  return value >>> 0;
}

/** Features that `shown` has and `offered` has not, by name; each once. Of several entries for a leaf, all count. */
export function missingFeatures(shown: readonly CpuidEntry[], offered: readonly CpuidEntry[]): string[] {
  const registers = featureRegisters();
  const own = new Map<number, CpuidEntry>();
  for (const entry of offered) own.set(keyOf(entry.function, entry.index), entry);
  const missing = new Map<FeatureRegister, number>();
  for (const entry of shown) {
    const key = keyOf(entry.function, entry.index);
    const host = own.get(key);
    for (const feature of registers.get(key) ?? []) {
      const bits = entry[feature.register] & ~(host?.[feature.register] ?? 0) & ~feature.others;
      if (bits !== 0) missing.set(feature, (missing.get(feature) ?? 0) | bits);
    }
  }
  if (missing.size === 0) return [];
  const names = FEATURE_REGISTERS.flatMap((feature) => bitNames(feature, missing.get(feature) ?? 0));
  return [...new Set(names)];
}

let byLeaf: ReadonlyMap<number, readonly FeatureRegister[]> | undefined;

function featureRegisters(): ReadonlyMap<number, readonly FeatureRegister[]> {
  if (byLeaf !== undefined) return byLeaf;
  const made = new Map<number, FeatureRegister[]>();
  for (const feature of FEATURE_REGISTERS) {
    const key = keyOf(feature.leaf, feature.index);
    const there = made.get(key);
    if (there === undefined) made.set(key, [feature]);
    else there.push(feature);
  }
  byLeaf = made;
  return made;
}

function keyOf(leaf: number, index: number): number {
  return leaf * 2 ** 16 + index;
}

function bitNames({ leaf, index, register: where, names }: FeatureRegister, bits: number): string[] {
  const known = namesOf(names);
  return bitsOf(bits).map((bit) => {
    const name = known[bit] ?? NO_NAME;
    return name === NO_NAME ? `cpuid(0x${leaf.toString(16)},${String(index)}).${where}[${String(bit)}]` : name;
  });
}

const NO_NAME = "-";

/** Of bit 0, 1, ... */
export function namesOf(names: string): string[] {
  return names.split(/\s+/).filter((name) => name !== "");
}

function bitsOf(value: number): number[] {
  return Array.from({ length: 32 }, (_, bit) => bit).filter((bit) => ((value >>> bit) & 1) !== 0);
}

/** Names of XSAVE's components, as of leaf 0xd. */
export function xsaveComponentNames(components: bigint): string[] {
  const names: string[] = [];
  if (components === 0n) return names;
  const { leaf, index, register: where } = XCR0_LOW;
  const low = FEATURE_REGISTERS.find(
    (feature) => feature.leaf === leaf && feature.index === index && feature.register === where,
  );
  const known = namesOf(low?.names ?? "");
  for (let bit = 0; bit < 64; bit++) {
    if (((components >> BigInt(bit)) & 1n) === 0n) continue;
    const name = known[bit] ?? NO_NAME;
    names.push(name === NO_NAME ? `component ${String(bit)}` : name);
  }
  return names;
}

/** IA32_ARCH_CAPABILITIES, bits that say that the processor has no such weakness or can do something. Intel SDM vol. 4. */
const ARCH_CAPABILITIES = `rdcl_no ibrs_all - skip_l1dfl_vmentry ssb_no mds_no pschange_mc_no tsx_ctrl taa_no -
   - - doitm sbdr_ssdp_no fbsdp_no psdp_no - fb_clear fb_clear_ctrl - bhi_no
   xapic_disable_status - overclocking_status pbrsb_no gds_ctrl gds_no rfds_no rfds_clear`;
export const IA32_ARCH_CAPABILITIES = 0x10a;

/** What `shown` promises and `offered` does not, by name. */
export function missingArchCapabilities(shown: bigint, offered: bigint): string[] {
  const bits = shown & ~offered;
  if (bits === 0n) return [];
  return namesOf(ARCH_CAPABILITIES).filter((name, bit) => name !== NO_NAME && ((bits >> BigInt(bit)) & 1n) !== 0n);
}

/** The bits of IA32_ARCH_CAPABILITIES that are good to have. */
export function archCapabilityBits(): bigint {
  return namesOf(ARCH_CAPABILITIES).reduce(
    (all, name, bit) => (name === NO_NAME ? all : all | (1n << BigInt(bit))),
    0n,
  );
}

/** "GenuineIntel", "AuthenticAMD" ...; empty without leaf 0. */
export function vendorOf(entries: readonly CpuidEntry[]): string {
  const entry = entries.find((candidate) => candidate.function === 0);
  if (entry === undefined) return "";
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32LE(entry.ebx, 0);
  bytes.writeUInt32LE(entry.edx, 4);
  bytes.writeUInt32LE(entry.ecx, 8);
  return bytes.toString("latin1");
}

export interface ProcessorModel {
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

/** Intel SDM vol. 2, CPUID leaf 1, "version information". */
export function processorModel(entries: readonly CpuidEntry[]): ProcessorModel {
  const eax = registerOf(entries, { leaf: 1, index: 0, register: "eax" });
  const baseFamily = (eax >>> 8) & 0xf;
  const family = baseFamily === 0xf ? baseFamily + ((eax >>> 20) & 0xff) : baseFamily;
  const baseModel = (eax >>> 4) & 0xf;
  const model = baseFamily === 0x6 || baseFamily === 0xf ? baseModel | ((eax >>> 12) & 0xf0) : baseModel;
  return { vendor: vendorOf(entries), family, model, stepping: eax & 0xf };
}
