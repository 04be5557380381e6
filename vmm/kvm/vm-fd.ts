// The requests of a VM file descriptor: memory slots, interrupt controllers, event wiring.
import {
  KVM_CAP_X86_USER_SPACE_MSR,
  KVM_CREATE_IRQCHIP,
  KVM_CREATE_PIT2,
  KVM_CREATE_VCPU,
  KVM_ENABLE_CAP,
  KVM_GET_CLOCK,
  KVM_GET_DIRTY_LOG,
  KVM_GET_IRQCHIP,
  KVM_GET_PIT2,
  KVM_IOEVENTFD,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IRQFD,
  KVM_IRQFD_FLAG_DEASSIGN,
  KVM_IRQFD_FLAG_RESAMPLE,
  KVM_IRQ_LINE,
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_MSR_EXIT_REASON_FILTER,
  KVM_MSR_FILTER_WRITE,
  KVM_PIT_SPEAKER_DUMMY,
  KVM_REGISTER_COALESCED_MMIO,
  KVM_SET_CLOCK,
  KVM_SET_GSI_ROUTING,
  KVM_SET_IDENTITY_MAP_ADDR,
  KVM_SET_IRQCHIP,
  KVM_SET_PIT2,
  KVM_SET_TSS_ADDR,
  KVM_SET_USER_MEMORY_REGION,
  KVM_SIGNAL_MSI,
  KVM_X86_SET_MSR_FILTER,
  SIZEOF_KVM_CLOCK_DATA,
  SIZEOF_KVM_COALESCED_MMIO_ZONE,
  SIZEOF_KVM_DIRTY_LOG,
  SIZEOF_KVM_ENABLE_CAP,
  SIZEOF_KVM_IOEVENTFD,
  SIZEOF_KVM_IRQCHIP,
  SIZEOF_KVM_IRQFD,
  SIZEOF_KVM_IRQ_ROUTING,
  SIZEOF_KVM_IRQ_ROUTING_ENTRY,
  SIZEOF_KVM_MSI,
  SIZEOF_KVM_MSR_FILTER,
  SIZEOF_KVM_PIT_CONFIG,
  SIZEOF_KVM_PIT_STATE2,
  SIZEOF_KVM_USERSPACE_MEMORY_REGION,
  kvm_clock_data,
  kvm_coalesced_mmio_zone,
  kvm_dirty_log,
  kvm_enable_cap,
  kvm_ioeventfd,
  kvm_irqchip,
  kvm_irq_routing,
  kvm_irq_routing_entry,
  kvm_irq_routing_irqchip,
  kvm_irq_routing_msi,
  kvm_irqfd,
  kvm_msi,
  kvm_msr_filter,
  kvm_msr_filter_range,
  kvm_pit_config,
  kvm_userspace_memory_region as region,
} from "../sys/kvm-abi.js";
import { ioctl, ioctlStruct, ioctlStructRaw } from "../sys/ioctl-calls.js";
import { EINVAL, systemCallError } from "../sys/errno.js";
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import type { MemoryRegion } from "../memory/guest-memory.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { VcpuFd } from "./vcpu-fd.js";
import { closeDescriptor } from "../sys/descriptors.js";

const MSR_BITMAP_BITS = 64;

/** Where an interrupt's number leads: to a pin of a chip, or to processors. */
export type GsiRoute = { readonly gsi: number } & (
  | { readonly chip: number; readonly pin: number }
  | {
      readonly message: { readonly addressLow: number; readonly addressHigh: number; readonly data: number };
    }
);

function structure(size: number): DataView<ArrayBuffer> {
  return new DataView(new ArrayBuffer(size));
}

// Of requests that are made for each interrupt: a new argument costs three times as much as the call. Each is filled, and read by the
// kernel, within one call.
const msi = structure(SIZEOF_KVM_MSI);
const irqLevel = new Uint32Array(2);

export class VmFd {
  readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** Set every slot before createIrqchip: each one afterwards costs milliseconds of kernel grace period. */
  setMemoryRegion(slot: number, memory: MemoryRegion, flags = 0): void {
    const argument = structure(SIZEOF_KVM_USERSPACE_MEMORY_REGION);
    argument.setUint32(region.slot, slot, true);
    argument.setUint32(region.flags, flags, true);
    argument.setBigUint64(region.guest_phys_addr, BigInt(memory.gpa), true);
    argument.setBigUint64(region.memory_size, BigInt(memory.size), true);
    argument.setBigUint64(region.userspace_addr, BigInt(memory.hva), true);
    ioctlStruct(this.fd, "KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION, argument);
  }

  /**
   * Fills the memory at `bitmap` with a bit for each page of the slot that the guest has written since the last time;
   * the slot has KVM_MEM_LOG_DIRTY_PAGES.
   */
  getDirtyLog(slot: number, bitmap: number): void {
    const argument = structure(SIZEOF_KVM_DIRTY_LOG);
    argument.setUint32(kvm_dirty_log.slot, slot, true);
    argument.setBigUint64(kvm_dirty_log.dirty_bitmap, BigInt(bitmap), true);
    ioctlStruct(this.fd, "KVM_GET_DIRTY_LOG", KVM_GET_DIRTY_LOG, argument);
  }

  /** Three pages below 4 GiB that VT-x needs for real mode; ignored by other hosts. */
  setTssAddress(gpa: number): void {
    ioctl(this.fd, "KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR, gpa);
  }

  setIdentityMapAddress(gpa: number): void {
    const argument = structure(8);
    argument.setBigUint64(0, BigInt(gpa), true);
    ioctlStruct(this.fd, "KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR, argument);
  }

  /** Two 8259A, an I/O APIC, and a local APIC for every vCPU created from now on. */
  createIrqchip(): void {
    ioctl(this.fd, "KVM_CREATE_IRQCHIP", KVM_CREATE_IRQCHIP);
  }

  /** The 8254 timer; port 0x61 is answered in the kernel too. */
  createPit2(): void {
    const argument = structure(SIZEOF_KVM_PIT_CONFIG);
    argument.setUint32(kvm_pit_config.flags, KVM_PIT_SPEAKER_DUMMY, true);
    ioctlStruct(this.fd, "KVM_CREATE_PIT2", KVM_CREATE_PIT2, argument);
  }

  /** `id` is the local APIC id as well. */
  createVcpu(id: number, mmapSize: number): VcpuFd {
    return VcpuFd.map(ioctl(this.fd, "KVM_CREATE_VCPU", KVM_CREATE_VCPU, id), mmapSize);
  }

  /** Guest writes to the range signal `eventfd` without an exit to this process. */
  connectIoeventfd(eventfd: number, address: number, length: number, flags: number, datamatch = 0n): void {
    const argument = structure(SIZEOF_KVM_IOEVENTFD);
    argument.setBigUint64(kvm_ioeventfd.datamatch, datamatch, true);
    argument.setBigUint64(kvm_ioeventfd.addr, BigInt(address), true);
    argument.setUint32(kvm_ioeventfd.len, length, true);
    argument.setInt32(kvm_ioeventfd.fd, eventfd, true);
    argument.setUint32(kvm_ioeventfd.flags, flags, true);
    ioctlStruct(this.fd, "KVM_IOEVENTFD", KVM_IOEVENTFD, argument);
  }

  /** Undoes connectIoeventfd without flags. */
  disconnectIoeventfd(eventfd: number, address: number, length: number): void {
    this.connectIoeventfd(eventfd, address, length, KVM_IOEVENTFD_FLAG_DEASSIGN);
  }

  /**
   * A message-signalled interrupt, from any thread. What it says is the guest's choice: one that no processor takes, or that
   * KVM refuses, is lost, as on a PC.
   */
  signalMsi(addressLow: number, addressHigh: number, data: number): void {
    msi.setUint32(kvm_msi.address_lo, addressLow, true);
    msi.setUint32(kvm_msi.address_hi, addressHigh, true);
    msi.setUint32(kvm_msi.data, data, true);
    ioctlStructRaw(this.fd, KVM_SIGNAL_MSI, msi);
  }

  /** Whoever writes to `eventfd`, in any process, sends an edge to the interrupt line. */
  connectIrqfd(eventfd: number, gsi: number): void {
    const argument = structure(SIZEOF_KVM_IRQFD);
    argument.setInt32(kvm_irqfd.fd, eventfd, true);
    argument.setUint32(kvm_irqfd.gsi, gsi, true);
    ioctlStruct(this.fd, "KVM_IRQFD", KVM_IRQFD, argument);
  }

  /** Of a line that stays raised until the guest has acknowledged it: then KVM lowers it, and signals `acknowledged`. */
  connectResamplingIrqfd(raised: number, acknowledged: number, gsi: number): void {
    const argument = structure(SIZEOF_KVM_IRQFD);
    argument.setInt32(kvm_irqfd.fd, raised, true);
    argument.setUint32(kvm_irqfd.gsi, gsi, true);
    argument.setUint32(kvm_irqfd.flags, KVM_IRQFD_FLAG_RESAMPLE, true);
    argument.setInt32(kvm_irqfd.resamplefd, acknowledged, true);
    ioctlStruct(this.fd, "KVM_IRQFD", KVM_IRQFD, argument);
  }

  disconnectIrqfd(eventfd: number, gsi: number): void {
    const argument = structure(SIZEOF_KVM_IRQFD);
    argument.setInt32(kvm_irqfd.fd, eventfd, true);
    argument.setUint32(kvm_irqfd.gsi, gsi, true);
    argument.setUint32(kvm_irqfd.flags, KVM_IRQFD_FLAG_DEASSIGN, true);
    ioctlStruct(this.fd, "KVM_IRQFD", KVM_IRQFD, argument);
  }

  /**
   * Replaces what each interrupt line leads to, those of KVM's own chips included. False, and nothing has changed, if there is
   * a message that KVM does not take.
   */
  trySetGsiRouting(routes: readonly GsiRoute[]): boolean {
    const argument = structure(SIZEOF_KVM_IRQ_ROUTING + SIZEOF_KVM_IRQ_ROUTING_ENTRY * routes.length);
    argument.setUint32(kvm_irq_routing.nr, routes.length, true);
    routes.forEach((route, index) => {
      const at = kvm_irq_routing.entries + SIZEOF_KVM_IRQ_ROUTING_ENTRY * index;
      const union = at + kvm_irq_routing_entry.u;
      argument.setUint32(at + kvm_irq_routing_entry.gsi, route.gsi, true);
      if ("chip" in route) {
        argument.setUint32(at + kvm_irq_routing_entry.type, KVM_IRQ_ROUTING_IRQCHIP, true);
        argument.setUint32(union + kvm_irq_routing_irqchip.irqchip, route.chip, true);
        argument.setUint32(union + kvm_irq_routing_irqchip.pin, route.pin, true);
      } else {
        argument.setUint32(at + kvm_irq_routing_entry.type, KVM_IRQ_ROUTING_MSI, true);
        argument.setUint32(union + kvm_irq_routing_msi.address_lo, route.message.addressLow, true);
        argument.setUint32(union + kvm_irq_routing_msi.address_hi, route.message.addressHigh, true);
        argument.setUint32(union + kvm_irq_routing_msi.data, route.message.data, true);
      }
    });
    const result = ioctlStructRaw(this.fd, KVM_SET_GSI_ROUTING, argument);
    if (result < 0 && result !== -EINVAL) throw systemCallError("KVM_SET_GSI_ROUTING");
    return result >= 0;
  }

  /** Port writes to the range go to the ring in the vCPU mapping and exit only when it is full. */
  coalescePortWrites(port: number, length: number): void {
    const argument = structure(SIZEOF_KVM_COALESCED_MMIO_ZONE);
    argument.setBigUint64(kvm_coalesced_mmio_zone.addr, BigInt(port), true);
    argument.setUint32(kvm_coalesced_mmio_zone.size, length, true);
    argument.setUint32(kvm_coalesced_mmio_zone.pio, 1, true);
    ioctlStruct(this.fd, "KVM_REGISTER_COALESCED_MMIO", KVM_REGISTER_COALESCED_MMIO, argument);
  }

  /** Writes of the guest to these MSRs, all within 64 of the first, exit as KVM_EXIT_X86_WRMSR. */
  exitOnMsrWrites(indices: readonly number[]): void {
    const base = Math.min(...indices);
    const address = mmapAnonymous(PAGE_SIZE);
    try {
      const bitmap = new DataView(viewMemory(address, PAGE_SIZE));
      const denied = indices.reduce((bits, index) => bits | (1n << BigInt(index - base)), 0n);
      // A set bit allows; what the bitmap does not cover is allowed.
      bitmap.setBigUint64(0, BigInt.asUintN(64, ~denied), true);
      const filter = structure(SIZEOF_KVM_MSR_FILTER);
      const range = kvm_msr_filter.ranges;
      filter.setUint32(range + kvm_msr_filter_range.flags, KVM_MSR_FILTER_WRITE, true);
      filter.setUint32(range + kvm_msr_filter_range.nmsrs, MSR_BITMAP_BITS, true);
      filter.setUint32(range + kvm_msr_filter_range.base, base, true);
      filter.setBigUint64(range + kvm_msr_filter_range.bitmap, BigInt(address), true);
      this.enableCapability(KVM_CAP_X86_USER_SPACE_MSR, BigInt(KVM_MSR_EXIT_REASON_FILTER));
      ioctlStruct(this.fd, "KVM_X86_SET_MSR_FILTER", KVM_X86_SET_MSR_FILTER, filter);
    } finally {
      // KVM has its own copy of the bitmap.
      munmap(address, PAGE_SIZE);
    }
  }

  /** struct kvm_irqchip of one chip: KVM_IRQCHIP_*. */
  getIrqchip(chip: number): DataView<ArrayBuffer> {
    const argument = structure(SIZEOF_KVM_IRQCHIP);
    argument.setUint32(kvm_irqchip.chip_id, chip, true);
    ioctlStruct(this.fd, "KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, argument);
    return argument;
  }

  setIrqchip(chip: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_IRQCHIP", KVM_SET_IRQCHIP, chip);
  }

  /** struct kvm_pit_state2. */
  getPit2(): DataView<ArrayBuffer> {
    const argument = structure(SIZEOF_KVM_PIT_STATE2);
    ioctlStruct(this.fd, "KVM_GET_PIT2", KVM_GET_PIT2, argument);
    return argument;
  }

  setPit2(pit: DataView): void {
    ioctlStruct(this.fd, "KVM_SET_PIT2", KVM_SET_PIT2, pit);
  }

  /** What kvm-clock shows the guest now, nanoseconds. */
  getClock(): bigint {
    const argument = structure(SIZEOF_KVM_CLOCK_DATA);
    ioctlStruct(this.fd, "KVM_GET_CLOCK", KVM_GET_CLOCK, argument);
    return argument.getBigUint64(kvm_clock_data.clock, true);
  }

  /** kvm-clock goes on from here, nanoseconds. */
  setClock(clock: bigint): void {
    const argument = structure(SIZEOF_KVM_CLOCK_DATA);
    argument.setBigUint64(kvm_clock_data.clock, clock, true);
    ioctlStruct(this.fd, "KVM_SET_CLOCK", KVM_SET_CLOCK, argument);
  }

  /** Level of an interrupt line, for lines that are not pulsed. */
  setIrqLine(gsi: number, level: 0 | 1): void {
    irqLevel[0] = gsi;
    irqLevel[1] = level;
    ioctlStruct(this.fd, "KVM_IRQ_LINE", KVM_IRQ_LINE, irqLevel);
  }

  /**
   * One edge on an interrupt line, from any thread. Not by an irqfd, which only other processes need: each costs the
   * host's kernel a grace period when the VM goes.
   */
  pulseIrqLine(gsi: number): void {
    this.setIrqLine(gsi, 1);
    this.setIrqLine(gsi, 0);
  }

  enableCapability(capability: number, argument0 = 0n): void {
    const argument = structure(SIZEOF_KVM_ENABLE_CAP);
    argument.setUint32(kvm_enable_cap.cap, capability, true);
    argument.setBigUint64(kvm_enable_cap.args, argument0, true);
    ioctlStruct(this.fd, "KVM_ENABLE_CAP", KVM_ENABLE_CAP, argument);
  }

  close(): void {
    closeDescriptor(this.fd);
  }
}
