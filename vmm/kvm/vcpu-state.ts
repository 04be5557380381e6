// All state of a vCPU: taken from one, given to a new one. The vCPU has left KVM_RUN and has nothing to complete
// (vcpu/loop.ts, completeExit). Kept as KVM's structures, because a clone loads them as they are; vcpu-data.ts has them as
// data with names. KVM api.rst §4.11 to §4.46.
import { KVM_CAP_XSAVE2, SIZEOF_KVM_XSAVE, kvm_sregs, kvm_vcpu_events } from "../sys/kvm-abi.js";
import { KvmIoctlError, SnapshotError } from "../errors.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import type { KvmSystem } from "./system.js";
import type { MsrValue, VcpuFd } from "./vcpu-fd.js";

export const IA32_TSC = 0x10;
const IA32_TSC_DEADLINE = 0x6e0;
const INTERRUPT_BITMAP_WORDS = 4;

export interface VcpuState {
  readonly cpuid: readonly CpuidEntry[];
  /** Rate of its time-stamp counter, 0 if the host does not tell. */
  readonly tscKhz: number;
  /** KVM_MP_STATE_*. */
  readonly mpState: number;
  readonly regs: DataView<ArrayBuffer>;
  readonly sregs: DataView<ArrayBuffer>;
  readonly debugregs: DataView<ArrayBuffer>;
  readonly xsave: DataView<ArrayBuffer>;
  /** [number, value] of each extended control register. */
  readonly xcrs: readonly (readonly [number, bigint])[];
  readonly lapic: DataView<ArrayBuffer>;
  readonly msrs: readonly MsrValue[];
  readonly events: DataView<ArrayBuffer>;
}

/** `bytes` of the XSAVE area of this VM's vCPUs. KVM api.rst, KVM_CAP_XSAVE2. */
export function xsaveBytes(system: Pick<KvmSystem, "checkExtension">): number {
  return Math.max(SIZEOF_KVM_XSAVE, system.checkExtension(KVM_CAP_XSAVE2));
}

export interface CaptureOptions {
  readonly cpuid: readonly CpuidEntry[];
  /** KvmSystem.msrIndices. */
  readonly msrIndices: readonly number[];
  readonly xsaveBytes: number;
}

export function captureVcpu(vcpu: VcpuFd, { cpuid, msrIndices, xsaveBytes: size }: CaptureOptions): VcpuState {
  const mpState = vcpu.getMpState();
  const sregs = vcpu.getSregs();
  // A software KVM leaves an interrupt in it that has long been delivered; `events` has what is really pending.
  for (let word = 0; word < INTERRUPT_BITMAP_WORDS; word++) {
    sregs.setBigUint64(kvm_sregs.interrupt_bitmap + 8 * word, 0n, true);
  }
  const events = vcpu.getEvents();
  return {
    cpuid,
    tscKhz: vcpu.tscKhz(),
    mpState,
    regs: vcpu.getRegs(),
    sregs,
    debugregs: vcpu.getDebugregs(),
    xsave: size > SIZEOF_KVM_XSAVE ? vcpu.getXsave2(size) : vcpu.getXsave(),
    xcrs: vcpu.getXcrs(),
    lapic: vcpu.getLapic(),
    msrs: readMsrs(vcpu, msrIndices),
    events,
  };
}

/** All that the host can read of them: it lists some that this vCPU has not. */
function readMsrs(vcpu: VcpuFd, indices: readonly number[]): MsrValue[] {
  const values: MsrValue[] = [];
  for (let from = 0; from < indices.length;) {
    const part = vcpu.getMsrs(indices.slice(from));
    part.forEach((value, i) => values.push([indices[from + i] ?? 0, value]));
    from += part.length + 1;
  }
  return values;
}

export interface LoadOptions {
  /** Of the vCPU, for messages. */
  readonly index: number;
  readonly xsaveBytes: number;
  /** KVM_CAP_TSC_CONTROL. */
  readonly canScaleTsc: boolean;
}

/**
 * Into a vCPU that has its CPUID and has never run. Each step needs those before it: the APIC its base in sregs, the
 * deadline timer its mode in the APIC and the counter that it compares with. Throws SnapshotError with what this KVM does
 * not take.
 */
export function loadVcpu(vcpu: VcpuFd, state: VcpuState, options: LoadOptions): void {
  const load = (group: string, set: () => void): void => {
    loading(`${group} of vCPU ${String(options.index)}`, set);
  };
  setTscRate(vcpu, state.tscKhz, options);
  load("the segment and control registers", () => {
    vcpu.setSregs(state.sregs);
  });
  load("the general registers", () => {
    vcpu.setRegs(state.regs);
  });
  load("XCR0", () => {
    vcpu.setXcrs(state.xcrs);
  });
  load("the XSAVE state", () => {
    vcpu.setXsave(asLong(state.xsave, options.xsaveBytes));
  });
  load("the debug registers", () => {
    vcpu.setDebugregs(state.debugregs);
  });
  load("the local APIC", () => {
    vcpu.setLapic(state.lapic);
  });
  load("the MSRs", () => {
    loadMsrs(vcpu, state.msrs, options.index);
  });
  load("the run state", () => {
    vcpu.setMpState(state.mpState);
  });
  const flags = state.events.getUint32(kvm_vcpu_events.flags, true);
  // "Pending" is only set with its flag; the host that has saved it need not have set it.
  const events = new DataView(state.events.buffer.slice(0));
  events.setUint32(kvm_vcpu_events.flags, flags | VALID_ALWAYS, true);
  load("the pending events", () => {
    vcpu.setEvents(events);
  });
}

/** `what`, such as "XCR0 of vCPU 0". Throws SnapshotError for what this KVM refuses as such. */
export function loading(what: string, set: () => void): void {
  try {
    set();
  } catch (error) {
    if (!(error instanceof KvmIoctlError) || !REFUSALS.includes(error.errnoName)) throw error;
    throw new SnapshotError(`This KVM does not take ${what} as saved: ${error.message}`, { cause: error });
  }
}

/** Of what it was given; other errors are the host's own trouble. */
const REFUSALS = ["EINVAL", "E2BIG", "ENXIO", "EFAULT", "EBUSY"];

/** KVM reads as much as this host's processors have, whatever it is given. */
function asLong(xsave: DataView<ArrayBuffer>, length: number): DataView<ArrayBuffer> {
  if (xsave.byteLength >= length) return xsave;
  const longer = new Uint8Array(length);
  longer.set(new Uint8Array(xsave.buffer));
  return new DataView(longer.buffer);
}

/** KVM would let a counter that it cannot scale jump at each exit, or run at the host's rate. */
function setTscRate(vcpu: VcpuFd, tscKhz: number, { index, canScaleTsc }: LoadOptions): void {
  const hostKhz = vcpu.tscKhz();
  if (tscKhz === 0 || hostKhz === 0 || tscKhz === hostKhz) return;
  if (!canRunAt(tscKhz, hostKhz, canScaleTsc)) {
    throw new SnapshotError(
      `The time-stamp counter of vCPU ${String(index)} runs at ${String(tscKhz)} kHz; ` +
        `this host's runs at ${String(hostKhz)} kHz and cannot be scaled`,
      { cure: "restore on a host whose processors scale it, or run at the same rate" },
    );
  }
  loading(`the rate of the time-stamp counter of vCPU ${String(index)}`, () => {
    vcpu.setTscKhz(tscKhz);
  });
}

/** Two rates that KVM takes for the same. `parts per million` */
const TSC_TOLERANCE_PPM = 250;

/** Whether a counter of `savedKhz` can go on where the host's has `hostKhz`; 0 is not known. */
export function canRunAt(savedKhz: number, hostKhz: number, canScale: boolean): boolean {
  if (savedKhz === 0 || hostKhz === 0 || canScale) return true;
  return Math.abs(savedKhz - hostKhz) <= (hostKhz * TSC_TOLERANCE_PPM) / 1e6;
}

/** KVM_VCPUEVENT_VALID_NMI_PENDING, VALID_SIPI_VECTOR, VALID_SHADOW. */
const VALID_ALWAYS = 0x7;

/** What a new vCPU has otherwise, by what is saved: for the clones after the first. */
const changedMsrs = new WeakMap<readonly MsrValue[], readonly MsrValue[]>();

/** Only what a new vCPU has otherwise: hosts refuse to have some set, even to what they are. */
function changedOf(vcpu: VcpuFd, saved: readonly MsrValue[]): readonly MsrValue[] {
  const known = changedMsrs.get(saved);
  if (known !== undefined) return known;
  const rank = (index: number): number => (index === IA32_TSC ? 0 : index === IA32_TSC_DEADLINE ? 2 : 1);
  const now = new Map(
    readMsrs(
      vcpu,
      saved.map(([index]) => index),
    ),
  );
  const changed = saved
    // To a guest, one that is 0 and one that this host does not have are the same.
    .filter(([index, value]) => index === IA32_TSC || (now.get(index) ?? 0n) !== value)
    .sort(([a], [b]) => rank(a) - rank(b));
  changedMsrs.set(saved, changed);
  return changed;
}

function loadMsrs(vcpu: VcpuFd, saved: readonly MsrValue[], vcpuIndex: number): void {
  const changed = changedOf(vcpu, saved);
  for (let from = 0; from < changed.length;) {
    const done = vcpu.trySetMsrs(changed.slice(from));
    from += done;
    const refused = changed[from];
    if (refused === undefined) continue;
    const [index, value] = refused;
    throw new SnapshotError(
      `This KVM does not take MSR 0x${index.toString(16)} of vCPU ${String(vcpuIndex)} as saved, 0x${value.toString(16)}`,
      { cure: "restore on a host with the same kind of processor, or create the guest with a CPU template" },
    );
  }
}
