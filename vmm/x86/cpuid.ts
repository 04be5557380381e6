// What the guest's CPUID says: the entries that the host supports, adapted to vCPU i of n.
// One socket, one or two threads a core. Intel SDM vol. 2 CPUID; AMD APM vol. 3 appendix E;
// hypervisor leaves: Documentation/virt/kvm/x86/cpuid.rst.

export interface CpuidEntry {
  readonly function: number;
  readonly index: number;
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;
const KVM_CPUID_SIGNATURE = 0x4000_0000;

// Leaf 1.
const ECX_MONITOR = 1 << 3;
const ECX_VMX = 1 << 5;
const ECX_X2APIC = 1 << 21;
const ECX_TSC_DEADLINE = 1 << 24;
const ECX_HYPERVISOR = 1 << 31;
const EDX_HTT = 1 << 28;
// Leaf 0x8000_0001.
const ECX_CMP_LEGACY = 1 << 1;
const ECX_SVM = 1 << 2;
const ECX_TOPOEXT = 1 << 22;

// KVM_CPUID_FEATURES: what a guest would do by hypercalls. PV_UNHALT, PV_SEND_IPI, PV_SCHED_YIELD, HC_MAP_GPA_RANGE.
const KVM_CPUID_FEATURES = 0x4000_0001;
const EAX_BY_HYPERCALL = (1 << 7) | (1 << 11) | (1 << 13) | (1 << 16);

const LEVEL_TYPE_SMT = 1;
const LEVEL_TYPE_CORE = 2;

export interface CpuidOptions {
  /** Also the APIC id. */
  readonly index: number;
  readonly count: number;
  /** vCPUs next to each other are threads of one core; default: 1. */
  readonly threadsPerCore?: 1 | 2 | undefined;
  /** Show vmx or svm. */
  readonly nested: boolean;
  /** KVM_CAP_TSC_DEADLINE_TIMER: not part of what KVM_GET_SUPPORTED_CPUID reports. */
  readonly tscDeadline: boolean;
  /** False on a KVM whose hypercalls never come back: the guest is not offered what it would do by them. */
  readonly hypercalls: boolean;
}

/** Bits that hold the APIC ids of `count` cores. */
export function coreIdBits(count: number): number {
  return Math.ceil(Math.log2(count));
}

/** Entries for KVM_SET_CPUID2, in the order of `supported`. */
export function guestCpuid(supported: readonly CpuidEntry[], options: CpuidOptions): CpuidEntry[] {
  const isTopology = (leaf: number): boolean => leaf === 0xb || leaf === 0x1f;
  const entries = supported
    .filter((entry) => !isTopology(entry.function) && !(entry.function === 0x8000_000a && !options.nested))
    .map((entry) => adjust(entry, options));
  if (supported.some((entry) => entry.function === 0 && entry.eax >= 0xb)) entries.push(...topologyLeaf(0xb, options));
  return entries;
}

/** True if a guest with these entries may use VT-x. */
export function hasVmx(entries: readonly CpuidEntry[]): boolean {
  return entries.some((entry) => entry.function === 1 && (entry.ecx & ECX_VMX) !== 0);
}

/** True if a guest may be shown VT-x or AMD-V. */
export function offersVirtualization(supported: readonly CpuidEntry[]): boolean {
  const hasSvm = supported.some((entry) => entry.function === 0x8000_0001 && (entry.ecx & ECX_SVM) !== 0);
  return hasSvm || hasVmx(supported);
}

/** Bits of a guest-physical address; where nothing says so, those of the first 64-bit processors. */
export function physicalAddressBits(supported: readonly CpuidEntry[]): number {
  const sizes = supported.find((entry) => entry.function === 0x8000_0008);
  return sizes === undefined ? 36 : sizes.eax & 0xff;
}

function adjust(entry: CpuidEntry, options: CpuidOptions): CpuidEntry {
  const { index, count, nested, tscDeadline, hypercalls } = options;
  const threads = threadsOf(options);
  switch (entry.function) {
    case 0x1: {
      const clflush = entry.ebx & 0x0000_ff00;
      const brand = entry.ebx & 0x0000_00ff;
      let ecx = (entry.ecx | ECX_HYPERVISOR | ECX_X2APIC) & ~ECX_MONITOR;
      if (tscDeadline) ecx |= ECX_TSC_DEADLINE;
      if (!nested) ecx &= ~ECX_VMX;
      const edx = count > 1 ? entry.edx | EDX_HTT : entry.edx & ~EDX_HTT;
      const ebx = (index << 24) | ((2 ** coreIdBits(count)) << 16) | clflush | brand;
      return { ...entry, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
    }
    case 0x4:
    case 0x8000_001d:
      return { ...entry, eax: cacheSharing(entry.function, entry.eax, count, threads) };
    case 0xa:
      // Performance counters are not virtualized: version 0.
      return { ...entry, eax: 0, ebx: 0, ecx: 0, edx: 0 };
    case KVM_CPUID_SIGNATURE:
      return { ...entry, eax: Math.max(entry.eax, KVM_CPUID_SIGNATURE + 1) };
    case KVM_CPUID_FEATURES:
      return hypercalls ? entry : { ...entry, eax: (entry.eax & ~EAX_BY_HYPERCALL) >>> 0 };
    case 0x8000_0001: {
      let { ecx } = entry;
      if (!nested) ecx &= ~ECX_SVM;
      ecx = count > 1 ? ecx | ECX_CMP_LEGACY : ecx & ~(ECX_CMP_LEGACY | ECX_TOPOEXT);
      return { ...entry, ecx: ecx >>> 0 };
    }
    case 0x8000_0008: {
      const ecx = (entry.ecx & ~0xf0ff) | (coreIdBits(count) << 12) | (count - 1);
      return { ...entry, ecx: ecx >>> 0 };
    }
    case 0x8000_001e:
      // Extended APIC id; threads a core less one, and the core; node 0 of 1.
      return { ...entry, eax: index, ebx: ((threads - 1) << 8) | Math.floor(index / threads), ecx: 0, edx: 0 };
    default:
      return entry;
  }
}

/** A single vCPU has no thread beside it. */
function threadsOf({ count, threadsPerCore = 1 }: CpuidOptions): number {
  return count > 1 ? threadsPerCore : 1;
}

/** The last-level cache belongs to all cores, the others to one; leaf 4 counts the socket's cores too. */
function cacheSharing(leaf: number, eax: number, count: number, threads: number): number {
  if ((eax & 0x1f) === 0) return eax;
  const level = (eax >> 5) & 7;
  const sharing = (level >= 3 ? 2 ** coreIdBits(count) : threads) - 1;
  const kept = eax & 0x3fff;
  const cores = leaf === 0x4 ? 2 ** coreIdBits(count) / threads - 1 : 0;
  return (kept | (sharing << 14) | (cores << 26)) >>> 0;
}

function topologyLeaf(leaf: number, options: CpuidOptions): CpuidEntry[] {
  const { index, count } = options;
  const threads = threadsOf(options);
  const level = (i: number, type: number, shift: number, logical: number): CpuidEntry => ({
    function: leaf,
    index: i,
    flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    eax: shift,
    ebx: logical,
    ecx: (type << 8) | i,
    edx: index,
  });
  return [
    level(0, LEVEL_TYPE_SMT, threads - 1, threads),
    level(1, LEVEL_TYPE_CORE, coreIdBits(count), count),
    level(2, 0, 0, 0),
  ];
}
