// What a VM that rests waits for, read from its interrupt controllers and timers: KVM itself wakes a vCPU only while a
// thread is in KVM_RUN with it. Intel SDM vol. 3 §11.5.4 (timer), §11.8.4 (IRR); KVM api.rst §4.57, §4.71.
import {
  KVM_IRQCHIP_PIC_MASTER,
  KVM_MP_STATE_HALTED,
  KVM_MP_STATE_INIT_RECEIVED,
  KVM_MP_STATE_UNINITIALIZED,
  kvm_irqchip,
  kvm_pic_state,
  kvm_pit_channel_state,
  kvm_pit_state2,
  kvm_regs,
  kvm_vcpu_events,
} from "../sys/kvm-abi.js";
import type { VcpuFd } from "./vcpu-fd.js";
import type { VmFd } from "./vm-fd.js";

const RFLAGS_IF = 1n << 9n;
const IA32_TSC = 0x10;
const IA32_TSC_DEADLINE = 0x6e0;

const APIC_IRR = 0x200;
const APIC_IRR_WORDS = 8;
const APIC_STRIDE = 16;
const APIC_LVTT = 0x320;
const APIC_LVT_MASKED = 1 << 16;
const APIC_TIMER_MODE = 3 << 17;
const APIC_TIMER_DEADLINE = 2 << 17;
const APIC_TMCCT = 0x390;
const APIC_TDCR = 0x3e0;
/** KVM's: one count a nanosecond before the divider. */
const APIC_COUNTS_A_MS = 1e6;

const PIT_COUNTS_A_MS = 1193.182;
const PIT_MAX_COUNT = 0x1_0000;
const PIT_PERIODIC = [2, 3];
const PIT_ONE_SHOT = [0, 1, 4];

/** In `ms` from now: 0 is at once; "interrupt": only one from outside; "never": nothing. */
export type NextEvent = number | "interrupt" | "never";

/** Of the whole VM, none of whose vCPUs is in KVM_RUN. */
export function nextEvent(vm: Pick<VmFd, "getPit2" | "getIrqchip">, vcpus: readonly NextEventVcpu[]): NextEvent {
  const events = vcpus.map(nextVcpuEvent);
  if (events.every((event) => event === "never")) return "never";
  return isPicWaiting(vm) ? 0 : earliest([...events, nextPitEvent(vm.getPit2(), vcpus)]);
}

export type NextEventVcpu = Pick<VcpuFd, "getMpState" | "getRegs" | "getLapic" | "getEvents" | "getMsrs" | "tscKhz">;

function earliest(events: readonly NextEvent[]): NextEvent {
  const times = events.filter((event) => typeof event === "number");
  return times.length === 0 ? "interrupt" : Math.min(...times);
}

function nextVcpuEvent(vcpu: NextEventVcpu): NextEvent {
  const state = vcpu.getMpState();
  // Only another vCPU's start-up interrupt ends that.
  if (state === KVM_MP_STATE_UNINITIALIZED || state === KVM_MP_STATE_INIT_RECEIVED) return "never";
  if (state !== KVM_MP_STATE_HALTED) return 0;
  const events = vcpu.getEvents();
  const isPending = (at: number): boolean => events.getUint8(at) !== 0;
  if (isPending(kvm_vcpu_events.nmi_pending) || isPending(kvm_vcpu_events.interrupt_injected)) return 0;
  if ((vcpu.getRegs().getBigUint64(kvm_regs.rflags, true) & RFLAGS_IF) === 0n) return "never";
  const lapic = vcpu.getLapic();
  for (let word = 0; word < APIC_IRR_WORDS; word++) {
    if (lapic.getUint32(APIC_IRR + word * APIC_STRIDE, true) !== 0) return 0;
  }
  return nextTimerEvent(vcpu, lapic);
}

/** A timer that has just expired shows as one that is off: who parks a vCPU looks again soon. */
function nextTimerEvent(vcpu: NextEventVcpu, lapic: DataView): NextEvent {
  const lvt = lapic.getUint32(APIC_LVTT, true);
  if ((lvt & APIC_LVT_MASKED) !== 0) return "interrupt";
  if ((lvt & APIC_TIMER_MODE) === APIC_TIMER_DEADLINE) {
    const [now = 0n, deadline = 0n] = vcpu.getMsrs([IA32_TSC, IA32_TSC_DEADLINE]);
    if (deadline === 0n) return "interrupt";
    return deadline <= now ? 0 : Number(deadline - now) / Math.max(1, vcpu.tscKhz());
  }
  const count = lapic.getUint32(APIC_TMCCT, true);
  if (count === 0) return "interrupt";
  return (count * timerDivider(lapic.getUint32(APIC_TDCR, true))) / APIC_COUNTS_A_MS;
}

/** Bits 0, 1 and 3: 2, 4, ... 128, and 1 for all of them. */
function timerDivider(tdcr: number): number {
  const value = (tdcr & 3) | ((tdcr >> 1) & 4);
  return value === 7 ? 1 : 2 << value;
}

/** The first 8259A has an interrupt that it may deliver; the second one's comes through it. */
function isPicWaiting(vm: Pick<VmFd, "getIrqchip">): boolean {
  const chip = vm.getIrqchip(KVM_IRQCHIP_PIC_MASTER);
  const register = (name: "irr" | "imr"): number => chip.getUint8(kvm_irqchip.chip + kvm_pic_state[name]);
  // Without an initialization, it delivers nothing.
  return chip.getUint8(kvm_irqchip.chip + kvm_pic_state.irq_base) !== 0 && (register("irr") & ~register("imr")) !== 0;
}

/**
 * KVM does not tell when channel 0 was loaded: one that counts once is due within its whole time. Where a local APIC's
 * timer is in use, the 8254 is not: Linux leaves it in such a mode for good.
 */
function nextPitEvent(pit: DataView, vcpus: readonly NextEventVcpu[]): NextEvent {
  const channel = kvm_pit_state2.channels;
  const mode = pit.getUint8(channel + kvm_pit_channel_state.mode);
  const count = pit.getUint32(channel + kvm_pit_channel_state.count, true) || PIT_MAX_COUNT;
  const isOneShot = PIT_ONE_SHOT.includes(mode) && !vcpus.some(usesApicTimer);
  return PIT_PERIODIC.includes(mode) || isOneShot ? count / PIT_COUNTS_A_MS : "interrupt";
}

function usesApicTimer(vcpu: NextEventVcpu): boolean {
  return (vcpu.getLapic().getUint32(APIC_LVTT, true) & APIC_LVT_MASKED) === 0;
}
