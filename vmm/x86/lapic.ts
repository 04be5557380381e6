// The local APIC's pins as the MP specification wires them: LINT0 takes the 8259A, LINT1 NMIs.
// Intel SDM vol. 3 §11.5.1; the array is struct kvm_lapic_state, the register page itself.

const APIC_LVT0 = 0x350;
const APIC_LVT1 = 0x360;
const DELIVERY_MODE_MASK = 0x700;
const APIC_MODE_NMI = 0x400;
const APIC_MODE_EXTINT = 0x700;
const APIC_LVT_MASKED = 1 << 16;

/** Changes the register page in place, on every vCPU; only the boot processor listens to the 8259A. */
export function wireLocalInterrupts(lapic: DataView, isBootProcessor: boolean): void {
  setMode(lapic, APIC_LVT0, APIC_MODE_EXTINT, !isBootProcessor);
  setMode(lapic, APIC_LVT1, APIC_MODE_NMI, false);
}

function setMode(lapic: DataView, register: number, mode: number, isMasked: boolean): void {
  const kept = lapic.getUint32(register, true) & ~(DELIVERY_MODE_MASK | APIC_LVT_MASKED);
  lapic.setUint32(register, kept | mode | (isMasked ? APIC_LVT_MASKED : 0), true);
}
