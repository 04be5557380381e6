// Whether a saved guest can go on on this host's processor: it has been told once, at its boot, what the processor can
// do, and uses that for ever. Another family or model does not matter where all of that is there.
import { guestCpuid, physicalAddressBits, type CpuidEntry } from "../x86/cpuid.js";
import {
  IA32_ARCH_CAPABILITIES,
  missingArchCapabilities,
  missingFeatures,
  registerOf,
  vendorOf,
  xsaveComponentNames,
} from "../x86/cpu-features.js";
import { SnapshotError } from "../errors.js";
import { canRunAt, type VcpuState } from "../kvm/vcpu-state.js";
import type { HostCpu } from "../machine/host-cpu.js";
import type { SavedHost } from "./saved-host.js";

/** XSTATE_BV, of the header behind the 512 bytes of FXSAVE. Intel SDM vol. 1 §13.4.2. */
const XSTATE_BV = 512;
const EDX_ARCH_CAPABILITIES = 1 << 29;

/** This host, for a guest that would go on here. */
export interface ThisHost {
  readonly cpu: HostCpu;
  /** Its KVM has no hardware virtualization behind it. */
  readonly software: boolean;
  /** The processor's own CPUID, and this boot's id: asked for only where `software`. */
  readonly native: () => readonly CpuidEntry[];
  readonly boot: () => string;
  /** Of a new guest, `kHz`; undefined or 0 if nobody has asked, or it is not known. */
  readonly tscKhz?: number | undefined;
}

export interface SavedCpus {
  readonly vcpus: readonly VcpuState[];
  readonly host: SavedHost;
}

/** What does not fit, a sentence without its full stop each; empty if the guest can go on. */
export function cpuProblems({ vcpus, host: saved }: SavedCpus, here: ThisHost): string[] {
  const { cpu: host, software } = here;
  if (saved.software !== software) return [kindProblem(saved.software)];
  const shown = vcpus.flatMap(({ cpuid }) => cpuid);
  const offered = guestCpuid(host.supported, {
    index: 0,
    count: vcpus.length,
    nested: true,
    tscDeadline: host.tscDeadline,
    hypercalls: !software,
  });
  const problems: string[] = [];
  const [vendor, hostVendor] = [vendorOf(shown), vendorOf(host.supported)];
  if (vendor !== hostVendor) {
    problems.push(`its processor is ${name(vendor)}, and this host's ${name(hostVendor)}: their kernels differ`);
  }
  // Within one boot of a host, the processor stays the same, and asking it is slow.
  const isOther = software && saved.native.length > 0 && saved.boot !== here.boot();
  const unseen = isOther ? missingFeatures(saved.native, here.native()) : [];
  const features = [...new Set([...missingFeatures(shown, offered), ...unseen])];
  if (features.length > 0) problems.push(`this host's processor or KVM lacks ${features.join(", ")}`);
  const [bits, hostBits] = [Math.max(...vcpus.map(({ cpuid }) => physicalAddressBits(cpuid))), addressBits(host)];
  if (bits > hostBits) {
    problems.push(`it has physical addresses of ${String(bits)} bits, and this host of ${String(hostBits)}`);
  }
  problems.push(...msrProblems(vcpus, host), ...xsaveProblems(vcpus, host), ...tscProblems(vcpus, here));
  return problems;
}

/** Throws SnapshotError with all that does not fit. `path`: of the state file. */
export function checkCpu(path: string, saved: SavedCpus, here: ThisHost): void {
  const problems = cpuProblems(saved, here);
  if (problems.length === 0) return;
  const { processor, software } = saved.host;
  const made = `${processor.vendor} family ${String(processor.family)} model ${String(processor.model)}`;
  throw new SnapshotError(`${path}: the guest cannot go on on this host: ${problems.join("; ")}`, {
    cure: software
      ? `restore it on a host like that where it was made (${made}, a KVM without hardware virtualization)`
      : `restore it on a host like that where it was made (${made}), or boot the guest with --cpu-template`,
  });
}

function kindProblem(wasSoftware: boolean): string {
  return wasSoftware
    ? "it was booted on a KVM without hardware virtualization, and this host's has it: its kernel is set up for the former"
    : "it was booted on hardware virtualization, and this host's KVM has none: its kernel may use what this KVM cannot do";
}

function name(vendor: string): string {
  return /^[\x20-\x7e]{1,12}$/.test(vendor) ? vendor.trim() : JSON.stringify(vendor);
}

function addressBits({ supported }: HostCpu): number {
  return physicalAddressBits(supported);
}

/** Of several vCPUs, one says it for all. */
function msrProblems(vcpus: readonly VcpuState[], host: HostCpu): string[] {
  const unknown = new Set<number>();
  const promised = new Set<string>();
  for (const { msrs, cpuid } of vcpus) {
    const edx = registerOf(cpuid, { leaf: 7, index: 0, register: "edx" });
    for (const [index, value] of msrs) {
      // An MSR that is 0 and one that is not there are the same to a guest that does not know it.
      if (value !== 0n && !host.msrs.has(index)) unknown.add(index);
      if (index !== IA32_ARCH_CAPABILITIES || (edx & EDX_ARCH_CAPABILITIES) === 0) continue;
      for (const capability of missingArchCapabilities(value, host.archCapabilities)) promised.add(capability);
    }
  }
  const problems: string[] = [];
  if (unknown.size > 0) {
    const list = [...unknown].sort((a, b) => a - b).map((index) => `0x${index.toString(16)}`);
    problems.push(`this host's KVM does not know the MSRs ${list.join(", ")}, which it uses`);
  }
  if (promised.size > 0) {
    problems.push(`IA32_ARCH_CAPABILITIES promised it ${[...promised].join(", ")}, which this host does not have`);
  }
  return problems;
}

/** XCR0 and what XSAVE has kept: within what the guest was shown, and what this host has. */
function xsaveProblems(vcpus: readonly VcpuState[], host: HostCpu): string[] {
  const [own, shown] = [new Set<string>(), new Set<string>()];
  let bytes = 0;
  for (const { xcrs, xsave, cpuid } of vcpus) {
    const used = xcrs.reduce((all, [number, value]) => (number === 0 ? all | value : all), 0n) | components(xsave);
    const [mayUse, hostHas] = [cpuidComponents(cpuid), cpuidComponents(host.supported)];
    // KVM keeps x87 and SSE of a guest without XSAVE, too.
    const legacy = 3n;
    for (const component of xsaveComponentNames(used & ~hostHas & ~legacy)) own.add(component);
    for (const component of xsaveComponentNames(used & hostHas & ~mayUse & ~legacy)) shown.add(component);
    if (own.size > 0) bytes = Math.max(bytes, xsave.byteLength);
  }
  const problems: string[] = [];
  if (own.size > 0) {
    const sizes = `${String(bytes)} bytes, and this host ${String(host.xsaveBytes)}`;
    problems.push(`XSAVE has kept ${[...own].join(", ")}, which this host cannot (it needs ${sizes})`);
  }
  if (shown.size > 0) problems.push(`XSAVE has kept ${[...shown].join(", ")}, which its own CPUID does not have`);
  return problems;
}

function components(xsave: DataView): bigint {
  return xsave.getBigUint64(XSTATE_BV, true);
}

function cpuidComponents(cpuid: readonly CpuidEntry[]): bigint {
  const part = (index: number, register: "eax" | "ecx" | "edx"): bigint =>
    BigInt(registerOf(cpuid, { leaf: 0xd, index, register }));
  return part(0, "eax") | (part(0, "edx") << 32n) | part(1, "ecx");
}

function tscProblems(vcpus: readonly VcpuState[], { cpu, tscKhz = 0 }: ThisHost): string[] {
  const other = vcpus.find((vcpu) => !canRunAt(vcpu.tscKhz, tscKhz, cpu.canScaleTsc));
  if (other === undefined) return [];
  const rates = `${String(other.tscKhz)} kHz, and this host's at ${String(tscKhz)}`;
  return [`its time-stamp counter runs at ${rates}, which cannot be scaled here`];
}
