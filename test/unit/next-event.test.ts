// Needs: nothing. When a VM that rests has something to do by itself, from what KVM's registers say.
import assert from "node:assert/strict";
import { nextEvent, type NextEventVcpu } from "../../vmm/kvm/next-event.js";
import {
  KVM_MP_STATE_HALTED,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_UNINITIALIZED,
  SIZEOF_KVM_IRQCHIP,
  SIZEOF_KVM_LAPIC_STATE,
  SIZEOF_KVM_PIT_STATE2,
  SIZEOF_KVM_REGS,
  SIZEOF_KVM_VCPU_EVENTS,
  kvm_irqchip,
  kvm_pic_state,
  kvm_pit_channel_state,
  kvm_regs,
  kvm_vcpu_events,
} from "../../vmm/sys/kvm-abi.js";

const structure = (size: number): DataView<ArrayBuffer> => new DataView(new ArrayBuffer(size));

interface VcpuOptions {
  readonly state?: number;
  readonly interrupts?: boolean;
  readonly lapic?: Readonly<Record<number, number>>;
  readonly tsc?: readonly bigint[];
  readonly nmi?: boolean;
}

function vcpu({ state = KVM_MP_STATE_HALTED, interrupts = true, lapic = {}, tsc = [], nmi = false }: VcpuOptions = {}) {
  const one: NextEventVcpu = {
    getMpState: () => state,
    getRegs: () => {
      const regs = structure(SIZEOF_KVM_REGS);
      regs.setBigUint64(kvm_regs.rflags, interrupts ? 0x202n : 2n, true);
      return regs;
    },
    getEvents: () => {
      const events = structure(SIZEOF_KVM_VCPU_EVENTS);
      events.setUint8(kvm_vcpu_events.nmi_pending, nmi ? 1 : 0);
      return events;
    },
    getLapic: () => {
      const page = structure(SIZEOF_KVM_LAPIC_STATE);
      page.setUint32(0x320, 0x1_0000, true);
      for (const [at, value] of Object.entries(lapic)) page.setUint32(Number(at), value, true);
      return page;
    },
    getMsrs: () => [...tsc],
    tscKhz: () => 2_000_000,
  };
  return one;
}

interface ChipOptions {
  readonly pit?: { readonly mode: number; readonly count: number };
  readonly pic?: { readonly irr: number; readonly imr: number; readonly base: number };
}

function vm({ pit = { mode: 0xff, count: 0 }, pic = { irr: 0, imr: 0, base: 0 } }: ChipOptions = {}) {
  return {
    getPit2: () => {
      const state = structure(SIZEOF_KVM_PIT_STATE2);
      state.setUint8(kvm_pit_channel_state.mode, pit.mode);
      state.setUint32(kvm_pit_channel_state.count, pit.count, true);
      return state;
    },
    getIrqchip: () => {
      const chip = structure(SIZEOF_KVM_IRQCHIP);
      chip.setUint8(kvm_irqchip.chip + kvm_pic_state.irr, pic.irr);
      chip.setUint8(kvm_irqchip.chip + kvm_pic_state.imr, pic.imr);
      chip.setUint8(kvm_irqchip.chip + kvm_pic_state.irq_base, pic.base);
      return chip;
    },
  };
}

const next = (vcpus: VcpuOptions[], chips: ChipOptions = {}) => nextEvent(vm(chips), vcpus.map(vcpu));
const close = (actual: unknown, expected: number): void => {
  assert.ok(
    typeof actual === "number" && Math.abs(actual - expected) < 0.01,
    `${String(actual)}, not ${String(expected)}`,
  );
};

describe("next event", () => {
  it("a vCPU that runs has something to do at once", () => {
    assert.equal(next([{ state: KVM_MP_STATE_RUNNABLE }]), 0);
    assert.equal(next([{}, { state: KVM_MP_STATE_RUNNABLE }]), 0);
  });

  it("in HLT it waits for an interrupt; with interrupts off, or before its start, for nothing", () => {
    assert.equal(next([{}]), "interrupt");
    assert.equal(next([{ interrupts: false }]), "never");
    assert.equal(next([{ interrupts: false }, { state: KVM_MP_STATE_UNINITIALIZED }]), "never");
    assert.equal(next([{}, { state: KVM_MP_STATE_UNINITIALIZED }]), "interrupt");
  });

  it("an interrupt that is pending ends the wait: in the local APIC, the 8259A, an NMI", () => {
    for (const at of [0x200, 0x210, 0x270]) assert.equal(next([{ lapic: { [at]: 1 } }]), 0);
    assert.equal(next([{}], { pic: { irr: 0x10, imr: 0xef, base: 0x20 } }), 0);
    assert.equal(next([{}], { pic: { irr: 0x10, imr: 0x10, base: 0x20 } }), "interrupt");
    assert.equal(next([{}], { pic: { irr: 0x10, imr: 0, base: 0 } }), "interrupt");
    assert.equal(next([{ interrupts: false, nmi: true }]), 0);
  });

  it("the local APIC's timer, by count and divider, unless it is masked or has stopped", () => {
    const timer = (count: number, divider: number, lvt = 0x40): NonNullable<VcpuOptions["lapic"]> => ({
      0x320: lvt,
      0x390: count,
      0x3e0: divider,
    });
    for (const [divider, by] of [
      [0xb, 1],
      [0x0, 2],
      [0x3, 16],
      [0x8, 32],
      [0xa, 128],
    ] as const) {
      close(next([{ lapic: timer(5_000_000, divider) }]), 5 * by);
    }
    close(next([{ lapic: timer(5_000_000, 0xb, 0x2_0040) }]), 5);
    assert.equal(next([{ lapic: timer(5_000_000, 0xb, 0x1_0040) }]), "interrupt");
    assert.equal(next([{ lapic: timer(0, 0xb) }]), "interrupt");
  });

  it("the deadline of the time-stamp counter, unless there is none", () => {
    const lapic = { 0x320: 0x4_0040 };
    close(next([{ lapic, tsc: [1_000_000_000n, 1_006_000_000n] }]), 3);
    assert.equal(next([{ lapic, tsc: [1_000n, 999n] }]), 0);
    assert.equal(next([{ lapic, tsc: [1_000n, 0n] }]), "interrupt");
  });

  it("the 8254, again and again or once", () => {
    close(next([{}], { pit: { mode: 2, count: 11932 } }), 10);
    close(next([{}], { pit: { mode: 3, count: 0 } }), 54.925);
    close(next([{}], { pit: { mode: 0, count: 11932 } }), 10);
    assert.equal(next([{ lapic: { 0x320: 0x40 } }], { pit: { mode: 0, count: 11932 } }), "interrupt");
    assert.equal(next([{}], { pit: { mode: 0xff, count: 0 } }), "interrupt");
  });

  it("of several, the first", () => {
    const timer = (ms: number): VcpuOptions => ({ lapic: { 0x320: 0x40, 0x390: ms * 1e6, 0x3e0: 0xb } });
    close(next([timer(7), timer(3), {}], { pit: { mode: 2, count: 11932 } }), 3);
  });
});
