// The requests of a vCPU file descriptor. KVM wants them from one thread at a time; a vCPU may
// move to another thread between two KVM_RUNs. KVM api.rst §1, §4.10 to §4.13.
import {
  KVM_GET_LAPIC,
  KVM_GET_DEBUGREGS,
  KVM_GET_TSC_KHZ,
  KVM_GET_VCPU_EVENTS,
  KVM_GET_XCRS,
  KVM_GET_XSAVE,
  KVM_GET_XSAVE2,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_USE_HW_BP,
  KVM_GET_MP_STATE,
  KVM_GET_MSRS,
  KVM_GET_REGS,
  KVM_GET_SREGS,
  KVM_MP_STATE_HALTED,
  KVM_MP_STATE_INIT_RECEIVED,
  KVM_MP_STATE_UNINITIALIZED,
  KVM_RUN,
  KVM_KVMCLOCK_CTRL,
  KVM_SET_CPUID2,
  KVM_SET_DEBUGREGS,
  KVM_SET_FPU,
  KVM_SET_GUEST_DEBUG,
  KVM_SET_LAPIC,
  KVM_SET_MP_STATE,
  KVM_SET_MSRS,
  KVM_SET_REGS,
  KVM_SET_TSC_KHZ,
  KVM_SET_VCPU_EVENTS,
  KVM_SET_XCRS,
  KVM_SET_XSAVE,
  KVM_SET_SREGS,
  SIZEOF_KVM_DEBUGREGS,
  SIZEOF_KVM_FPU,
  SIZEOF_KVM_GUEST_DEBUG,
  SIZEOF_KVM_VCPU_EVENTS,
  SIZEOF_KVM_XCR,
  SIZEOF_KVM_XCRS,
  SIZEOF_KVM_XSAVE,
  SIZEOF_KVM_LAPIC_STATE,
  SIZEOF_KVM_MP_STATE,
  SIZEOF_KVM_MSRS,
  SIZEOF_KVM_MSR_ENTRY,
  SIZEOF_KVM_REGS,
  SIZEOF_KVM_SREGS,
  kvm_fpu,
  kvm_guest_debug,
  kvm_vcpu_events,
  kvm_xcr,
  kvm_xcrs,
  kvm_msr_entry,
  kvm_regs,
} from "../sys/kvm-abi.js";
import { HostError } from "../errors.js";
import { EAGAIN, EINTR, EINVAL, systemCallError } from "../sys/errno.js";
import { ioctl, ioctlRaw, ioctlStruct } from "../sys/ioctl-calls.js";
import { mmapFile, munmap } from "../sys/memory.js";
import { encodeCpuid, type CpuidEntry } from "./cpuid-list.js";
import { KvmRun } from "./kvm-run.js";
import { closeDescriptor } from "../sys/descriptors.js";

const RFLAGS_IF = 1n << 9n;
/** L0, an execution breakpoint of length 1; bit 10 is always set. Intel SDM vol. 3 §18.2.4. */
const DR7_EXECUTE_0 = 0x401n;

/** [index, value] */
export type MsrValue = readonly [index: number, value: bigint];

export class VcpuFd {
  readonly fd: number;
  readonly run: KvmRun;

  private constructor(fd: number, run: KvmRun) {
    this.fd = fd;
    this.run = run;
  }

  /** Wraps a new vCPU and maps the page that it shares with the kernel. */
  static map(fd: number, mmapSize: number): VcpuFd {
    try {
      return new VcpuFd(fd, new KvmRun(mmapFile(fd, mmapSize), mmapSize));
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
  }

  /** A further thread's handle on a vCPU that `map` has wrapped in this process. */
  static attach(fd: number, runAddress: number, mmapSize: number): VcpuFd {
    return new VcpuFd(fd, new KvmRun(runAddress, mmapSize));
  }

  /** One KVM_RUN; false if it was interrupted instead of ending in an exit of the guest. */
  enter(): boolean {
    const result = ioctlRaw(this.fd, KVM_RUN, 0);
    if (result >= 0) return true;
    // EAGAIN: an application processor that has had no start-up interrupt yet (KVM api.rst §4.10).
    if (result === -EINTR || result === -EAGAIN) return false;
    throw systemCallError("KVM_RUN", -result);
  }

  setCpuid(entries: readonly CpuidEntry[]): void {
    ioctlStruct(this.fd, "KVM_SET_CPUID2", KVM_SET_CPUID2, encodeCpuid(entries));
  }

  /** struct kvm_regs as it lies in memory; offsets in kvm-abi.ts. */
  getRegs(): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_REGS", KVM_GET_REGS, SIZEOF_KVM_REGS);
  }

  setRegs(regs: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_REGS", KVM_SET_REGS, regs);
  }

  /** struct kvm_sregs as it lies in memory; offsets in kvm-abi.ts. */
  getSregs(): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_SREGS", KVM_GET_SREGS, SIZEOF_KVM_SREGS);
  }

  setSregs(sregs: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_SREGS", KVM_SET_SREGS, sregs);
  }

  /** KVM_MP_STATE_*: running, halted, or not started yet. */
  getMpState(): number {
    return this.#get("KVM_GET_MP_STATE", KVM_GET_MP_STATE, SIZEOF_KVM_MP_STATE).getUint32(0, true);
  }

  setMpState(state: number): void {
    ioctlStruct(this.fd, "KVM_SET_MP_STATE", KVM_SET_MP_STATE, new Uint32Array([state]));
  }

  /** True in HLT with interrupts off (only an NMI could end it), or before the start-up interrupt. */
  isHaltedForever(): boolean {
    const state = this.getMpState();
    if (state === KVM_MP_STATE_UNINITIALIZED || state === KVM_MP_STATE_INIT_RECEIVED) return true;
    if (state !== KVM_MP_STATE_HALTED) return false;
    return (this.getRegs().getBigUint64(kvm_regs.rflags, true) & RFLAGS_IF) === 0n;
  }

  /** The state after FNINIT, all SSE exceptions masked. */
  resetFpu(): void {
    const fpu = new DataView(new ArrayBuffer(SIZEOF_KVM_FPU));
    fpu.setUint16(kvm_fpu.fcw, 0x37f, true);
    fpu.setUint32(kvm_fpu.mxcsr, 0x1f80, true);
    ioctlStruct(this.fd, "KVM_SET_FPU", KVM_SET_FPU, fpu);
  }

  getLapic(): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_LAPIC", KVM_GET_LAPIC, SIZEOF_KVM_LAPIC_STATE);
  }

  setLapic(lapic: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_LAPIC", KVM_SET_LAPIC, lapic);
  }

  /** Throws HostError naming the first MSR that the host refuses. */
  setMsrs(values: readonly MsrValue[]): void {
    const refused = values[this.trySetMsrs(values)];
    if (refused !== undefined) {
      throw new HostError(`KVM_SET_MSRS refuses MSR 0x${refused[0].toString(16)} = 0x${refused[1].toString(16)}`);
    }
  }

  /** Values in the order of `indices`; ends early at the first that the host does not know. */
  getMsrs(indices: readonly number[]): bigint[] {
    const argument = this.#msrs(indices);
    const done = ioctlStruct(this.fd, "KVM_GET_MSRS", KVM_GET_MSRS, argument);
    return Array.from({ length: done }, (_, i) =>
      argument.getBigUint64(SIZEOF_KVM_MSRS + i * SIZEOF_KVM_MSR_ENTRY + kvm_msr_entry.data, true),
    );
  }

  /** struct kvm_xsave: the XSAVE area in the standard format. KVM api.rst §4.42. */
  getXsave(): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_XSAVE", KVM_GET_XSAVE, SIZEOF_KVM_XSAVE);
  }

  setXsave(xsave: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_XSAVE", KVM_SET_XSAVE, xsave);
  }

  /** The same with all that the processor has, such as AMX: `size` is KVM_CAP_XSAVE2's. */
  getXsave2(size: number): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_XSAVE2", KVM_GET_XSAVE2, size);
  }

  /** [number, value] of each. */
  getXcrs(): [number, bigint][] {
    const xcrs = this.#get("KVM_GET_XCRS", KVM_GET_XCRS, SIZEOF_KVM_XCRS);
    return Array.from({ length: xcrs.getUint32(kvm_xcrs.nr_xcrs, true) }, (_, i) => {
      const at = kvm_xcrs.xcrs + i * SIZEOF_KVM_XCR;
      return [xcrs.getUint32(at + kvm_xcr.xcr, true), xcrs.getBigUint64(at + kvm_xcr.value, true)];
    });
  }

  /** At most MAX_XCRS. */
  setXcrs(values: readonly (readonly [number, bigint])[]): void {
    if (values.length === 0) return;
    const xcrs = new DataView(new ArrayBuffer(SIZEOF_KVM_XCRS));
    xcrs.setUint32(kvm_xcrs.nr_xcrs, values.length, true);
    values.forEach(([number, value], i) => {
      const at = kvm_xcrs.xcrs + i * SIZEOF_KVM_XCR;
      xcrs.setUint32(at + kvm_xcr.xcr, number, true);
      xcrs.setBigUint64(at + kvm_xcr.value, value, true);
    });
    ioctlStruct(this.fd, "KVM_SET_XCRS", KVM_SET_XCRS, xcrs);
  }

  /** struct kvm_debugregs: DR0 to DR3, DR6, DR7. */
  getDebugregs(): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS, SIZEOF_KVM_DEBUGREGS);
  }

  setDebugregs(debugregs: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, debugregs);
  }

  /** struct kvm_vcpu_events: what is pending or injected. KVM api.rst §4.31. */
  getEvents(): DataView<ArrayBuffer> {
    return this.#get("KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, SIZEOF_KVM_VCPU_EVENTS);
  }

  setEvents(events: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, events);
  }

  getXcr0(): bigint {
    return this.getXcrs()[0]?.[1] ?? 1n;
  }

  /** Throws KvmIoctlError (EINVAL) for a combination that the processor would refuse. */
  setXcr0(value: bigint): void {
    this.setXcrs([[0, value]]);
  }

  /** Injects the exception: the guest takes it at its next entry. KVM api.rst §4.32. */
  injectException(vector: number, errorCode: number | undefined): void {
    const events = this.getEvents();
    events.setUint8(kvm_vcpu_events.exception_injected, 1);
    events.setUint8(kvm_vcpu_events.exception_nr, vector);
    events.setUint8(kvm_vcpu_events.exception_has_error_code, errorCode === undefined ? 0 : 1);
    events.setUint32(kvm_vcpu_events.exception_error_code, errorCode ?? 0, true);
    this.setEvents(events);
  }

  /** KVM_EXIT_DEBUG before the instruction at the linear address; the guest's own debug registers are off meanwhile. */
  setHardwareBreakpoint(linear: bigint): void {
    const debug = new DataView(new ArrayBuffer(SIZEOF_KVM_GUEST_DEBUG));
    debug.setUint32(kvm_guest_debug.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, true);
    debug.setBigUint64(kvm_guest_debug.arch_debugreg, linear, true);
    debug.setBigUint64(kvm_guest_debug.arch_debugreg + 7 * 8, DR7_EXECUTE_0, true);
    ioctlStruct(this.fd, "KVM_SET_GUEST_DEBUG", KVM_SET_GUEST_DEBUG, debug);
  }

  /** Rate of the guest's time-stamp counter, 0 if the host does not know. KVM api.rst §4.56. */
  tscKhz(): number {
    return Math.max(0, ioctlRaw(this.fd, KVM_GET_TSC_KHZ, 0));
  }

  /** The counter then runs at this rate, scaled by hardware that can. Throws KvmIoctlError where it cannot. */
  setTscKhz(khz: number): void {
    ioctl(this.fd, "KVM_SET_TSC_KHZ", KVM_SET_TSC_KHZ, khz);
  }

  /** Tells a guest with a kvm-clock that it was stopped: its watchdogs then do not complain. KVM api.rst §4.69. */
  tellOfPause(): void {
    // EINVAL: this guest has no kvm-clock.
    const error = -ioctlRaw(this.fd, KVM_KVMCLOCK_CTRL, 0);
    if (error > 0 && error !== EINVAL) throw systemCallError("KVM_KVMCLOCK_CTRL", error);
  }

  /** How many, from the first on, the host has taken. */
  trySetMsrs(values: readonly MsrValue[]): number {
    const argument = this.#msrs(values.map(([index]) => index));
    values.forEach(([, value], i) => {
      argument.setBigUint64(SIZEOF_KVM_MSRS + i * SIZEOF_KVM_MSR_ENTRY + kvm_msr_entry.data, value, true);
    });
    return ioctlStruct(this.fd, "KVM_SET_MSRS", KVM_SET_MSRS, argument);
  }

  /** False if the host refuses the value. */
  trySetMsr(index: number, value: bigint): boolean {
    return this.trySetMsrs([[index, value]]) === 1;
  }

  /** Call it only when no thread runs or kicks this vCPU any more. */
  close(): void {
    munmap(this.run.address, this.run.length);
    closeDescriptor(this.fd);
  }

  #msrs(indices: readonly number[]): DataView {
    const argument = new DataView(new ArrayBuffer(SIZEOF_KVM_MSRS + indices.length * SIZEOF_KVM_MSR_ENTRY));
    argument.setUint32(0, indices.length, true);
    indices.forEach((index, i) => {
      argument.setUint32(SIZEOF_KVM_MSRS + i * SIZEOF_KVM_MSR_ENTRY, index, true);
    });
    return argument;
  }

  #get(name: string, request: number, size: number): DataView<ArrayBuffer> {
    const argument = new DataView(new ArrayBuffer(size));
    ioctlStruct(this.fd, name, request, argument);
    return argument;
  }
}
