// State of a VM that is no vCPU's: interrupt controllers, the 8254 timer, the guest's clock. As data with the UAPI's
// names, and back. KVM api.rst §4.27, §4.28, §4.29, §4.30, §4.72, §4.73.
import { hex64, type State, type StateReader } from "../../devices/state.js";
import {
  KVM_IOAPIC_NUM_PINS,
  KVM_IRQCHIP_IOAPIC,
  KVM_IRQCHIP_PIC_MASTER,
  KVM_IRQCHIP_PIC_SLAVE,
  SIZEOF_KVM_IRQCHIP,
  SIZEOF_KVM_PIT_CHANNEL_STATE,
  SIZEOF_KVM_PIT_STATE2,
  kvm_ioapic_state,
  kvm_irqchip,
  kvm_pic_state,
  kvm_pit_channel_state,
  kvm_pit_state2,
} from "../sys/kvm-abi.js";
import { fieldsOf, readFields, writeFields, type Fields } from "./fields.js";
import { loading } from "./vcpu-state.js";
import type { VmFd } from "./vm-fd.js";

const PIT_CHANNELS = 3;

const PIC = fieldsOf(kvm_pic_state, "u8");
const IOAPIC: Fields = [
  ["base_address", kvm_ioapic_state.base_address, "u64"],
  ["ioregsel", kvm_ioapic_state.ioregsel, "u32"],
  ["id", kvm_ioapic_state.id, "u32"],
  ["irr", kvm_ioapic_state.irr, "u32"],
];
const PIT_CHANNEL = fieldsOf(kvm_pit_channel_state, "u8", {
  count: "u32",
  latched_count: "u16",
  count_load_time: "u64",
});

export interface VmState {
  /** struct kvm_irqchip of each chip: master, slave, I/O APIC. */
  readonly irqchips: readonly DataView<ArrayBuffer>[];
  readonly pit: DataView<ArrayBuffer>;
  /** kvm-clock, nanoseconds. */
  readonly clock: bigint;
}

const CHIPS = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/** No vCPU runs. */
export function captureVm(vm: VmFd): VmState {
  return { irqchips: CHIPS.map((chip) => vm.getIrqchip(chip)), pit: vm.getPit2(), clock: vm.getClock() };
}

/**
 * After the vCPUs have their state: a local APIC must know what an interrupt of the I/O APIC means. Throws SnapshotError
 * with what this KVM does not take.
 */
export function loadVm(vm: VmFd, { irqchips, pit, clock }: VmState): void {
  loading("the interrupt controllers", () => {
    for (const chip of irqchips) vm.setIrqchip(chip);
  });
  loading("the 8254 timer", () => {
    vm.setPit2(pit);
  });
  loading("the clock", () => {
    vm.setClock(clock);
  });
}

export function vmToData({ irqchips, pit, clock }: VmState): State {
  const [master, slave, ioapic] = irqchips;
  if (master === undefined || slave === undefined || ioapic === undefined) throw new Error("Three chips are a PC's");
  return {
    clock: hex64(clock),
    picMaster: readFields(master, PIC, kvm_irqchip.chip),
    picSlave: readFields(slave, PIC, kvm_irqchip.chip),
    ioapic: {
      ...readFields(ioapic, IOAPIC, kvm_irqchip.chip),
      redirtbl: Array.from({ length: KVM_IOAPIC_NUM_PINS }, (_, pin) =>
        hex64(ioapic.getBigUint64(redirectionEntry(pin), true)),
      ),
    },
    pit: {
      flags: pit.getUint32(kvm_pit_state2.flags, true),
      channels: Array.from({ length: PIT_CHANNELS }, (_, channel) => readFields(pit, PIT_CHANNEL, pitChannel(channel))),
    },
  };
}

/** Throws StateError. */
export function vmFromData(data: StateReader): VmState {
  data.only(["clock", "picMaster", "picSlave", "ioapic", "pit"]);
  const chip = (id: number): DataView<ArrayBuffer> => {
    const structure = new DataView(new ArrayBuffer(SIZEOF_KVM_IRQCHIP));
    structure.setUint32(kvm_irqchip.chip_id, id, true);
    return structure;
  };
  const master = chip(KVM_IRQCHIP_PIC_MASTER);
  writeFields(master, PIC, data.at("picMaster"), kvm_irqchip.chip);
  const slave = chip(KVM_IRQCHIP_PIC_SLAVE);
  writeFields(slave, PIC, data.at("picSlave"), kvm_irqchip.chip);
  return {
    clock: data.hex64("clock", MAX_CLOCK),
    irqchips: [master, slave, ioapicFromData(data.at("ioapic"), chip(KVM_IRQCHIP_IOAPIC))],
    pit: pitFromData(data.at("pit")),
  };
}

/** A signed number for KVM: 292 years. */
const MAX_CLOCK = 0x7fff_ffff_ffff_ffffn;

function ioapicFromData(data: StateReader, structure: DataView<ArrayBuffer>): DataView<ArrayBuffer> {
  data.only([...IOAPIC.map(([name]) => name), "redirtbl"]);
  structure.setBigUint64(kvm_irqchip.chip + kvm_ioapic_state.base_address, data.hex64("base_address"), true);
  for (const name of ["ioregsel", "id", "irr"] as const) {
    const at = kvm_irqchip.chip + kvm_ioapic_state[name];
    structure.setUint32(at, data.integer(name, { minimum: 0, maximum: 0xffff_ffff }), true);
  }
  data.list("redirtbl", KVM_IOAPIC_NUM_PINS).forEach((entry, pin) => {
    structure.setBigUint64(redirectionEntry(pin), entry.asHex64(), true);
  });
  return structure;
}

function pitFromData(data: StateReader): DataView<ArrayBuffer> {
  data.only(["flags", "channels"]);
  const pit = new DataView(new ArrayBuffer(SIZEOF_KVM_PIT_STATE2));
  pit.setUint32(kvm_pit_state2.flags, data.integer("flags", { minimum: 0, maximum: 0xffff_ffff }), true);
  data.list("channels", PIT_CHANNELS).forEach((channel, i) => writeFields(pit, PIT_CHANNEL, channel, pitChannel(i)));
  return pit;
}

function redirectionEntry(pin: number): number {
  return kvm_irqchip.chip + kvm_ioapic_state.redirtbl + 8 * pin;
}

function pitChannel(channel: number): number {
  return kvm_pit_state2.channels + channel * SIZEOF_KVM_PIT_CHANNEL_STATE;
}
