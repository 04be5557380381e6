// A machine without anything to run: memory slots, interrupt controllers, vCPUs, event descriptors, the
// words that its threads share. Other code loads what runs in it. DESIGN.md, "Boot", steps 9 to 13.
import type { InterruptLine } from "../../devices/contracts.js";
import type { ResolvedConfig } from "../config/types.js";
import { HostError } from "../errors.js";
import { GuestRegisters } from "../fixups/guest-registers.js";
import type { Quirks } from "../fixups/quirks.js";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from "../fixups/syscall.js";
import type { KvmSystem } from "../kvm/system.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import { loading, loadVcpu, xsaveBytes, type VcpuState } from "../kvm/vcpu-state.js";
import type { VmFd } from "../kvm/vm-fd.js";
import { loadVm, type VmState } from "../kvm/vm-state.js";
import type { CommandPages } from "../memory/command-pages.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import {
  ACPI_SCI_GSI,
  KVM_IDENTITY_MAP_GPA,
  KVM_TSS_GPA,
  PCI_CONFIG_PORT,
  RTC_GSI,
  SERIAL0_PORT,
} from "../memory/layout.js";
import { WrittenPages } from "../memory/written-pages.js";
import { eventfd } from "../sys/events.js";
import {
  KVM_CAP_COALESCED_PIO,
  KVM_CAP_IOEVENTFD,
  KVM_CAP_READONLY_MEM,
  KVM_CAP_SET_IDENTITY_MAP_ADDR,
  KVM_CAP_SET_TSS_ADDR,
  KVM_CAP_TSC_CONTROL,
  KVM_CAP_TSC_DEADLINE_TIMER,
  KVM_MEM_READONLY,
} from "../sys/kvm-abi.js";
import type { MachineDescriptor } from "../vcpu/messages.js";
import { VmShared } from "../vcpu/shared.js";
import type { AssignedDevices } from "../pci/vfio/assigned-devices.js";
import type { DeviceFactory } from "../virtio/device-host.js";
import type { DeviceParts, DeviceSupport } from "../virtio/device-support.js";
import { RegisterPages } from "../virtio/register-pages.js";
import { throughTemplate, type CpuTemplate } from "../x86/cpu-template.js";
import { guestCpuid, type CpuidEntry } from "../x86/cpuid.js";
import { wireLocalInterrupts } from "../x86/lapic.js";
import { bootMsrs } from "../x86/msrs.js";
import { pciRanges } from "../x86/pci-host-bridge.js";
import type { DeviceAddresses } from "../x86/virtio-ranges.js";
import { DEVICE_WORDS } from "./thread-machine.js";
import { closeDescriptor } from "../sys/descriptors.js";

/** What a VM consists of while it lives. */
export interface Machine extends DeviceParts {
  readonly vm: VmFd;
  /** What each vCPU's CPUID says. */
  readonly cpuids: readonly (readonly CpuidEntry[])[];
  readonly vcpus: readonly VcpuFd[];
  readonly descriptor: MachineDescriptor;
  /** Of KVM: a write of the guest signals an eventfd. */
  readonly hasIoeventfd: boolean;
  /** Undefined without devices. */
  readonly deviceSupport: DeviceSupport | undefined;
  /** What the monitor writes to RAM. */
  readonly written: WrittenPages;
  /** The memory of the command's channel, if the configuration asks for one. */
  readonly command: CommandPages | undefined;
  /** What this KVM leaves to the monitor; undefined on hardware. */
  readonly quirks: Quirks | undefined;
  /** The real-time clock's. */
  readonly rtcInterrupt: InterruptLine;
  /** ACPI's. */
  readonly systemControl: InterruptLine;
}

/** State of KVM's part of a machine. */
export interface SavedMachine {
  readonly vm: VmState;
  readonly vcpus: readonly VcpuState[];
}

/** What a machine is made of. */
export interface MachineInputs {
  readonly config: ResolvedConfig;
  readonly system: KvmSystem;
  readonly quirks: Quirks | undefined;
  /** What the guest is shown of the processor; undefined for all of it. */
  readonly cpuTemplate: CpuTemplate | undefined;
  /** Guest RAM; other code fills it. */
  readonly memory: MappedGuestMemory;
  readonly command: CommandPages | undefined;
  /** What the vCPUs and interrupt controllers go on with; undefined to boot. */
  readonly saved: SavedMachine | undefined;
  /** Devices whose host sides are open, and where they lie. */
  readonly factories: readonly DeviceFactory[];
  /** Devices of the host that are open, too. */
  readonly assigned: AssignedDevices | undefined;
  readonly addresses: DeviceAddresses;
  readonly deviceSupport: DeviceSupport | undefined;
}

/** Throws KvmIoctlError or HostError; `undo` receives the functions that remove each part, in order. */
export function createMachine(inputs: MachineInputs, undo: (unmake: () => void) => void): Machine {
  const { system, quirks, memory, command, saved, factories, addresses, deviceSupport } = inputs;
  const { ranges, pci: bridge } = addresses;
  const vm = system.createVm();
  undo(() => {
    vm.close();
  });
  const written = WrittenPages.map(memory.size);
  undo(() => {
    written.unmap();
  });
  memory.noteIn(written);
  const pages = setMemory(inputs, vm, undo);
  vm.createIrqchip();
  vm.createPit2();

  const doorbellFd = eventfd();
  undo(() => {
    closeDescriptor(doorbellFd);
  });
  const devices = factories.map((factory, index) => ({
    factory,
    interrupt: pulsed(vm, ranges[index]?.gsi ?? 0),
    connectInterrupt: (fd: number) => {
      vm.connectIrqfd(fd, ranges[index]?.gsi ?? 0);
    },
    registers: pages?.words(index) ?? new Int32Array(0),
  }));
  const hasIoeventfd = system.checkExtension(KVM_CAP_IOEVENTFD) > 0;
  const ioEvents = hasIoeventfd && bridge === undefined ? deviceSupport?.createEvents(vm, ranges) : undefined;
  const coalescesSerial = system.checkExtension(KVM_CAP_COALESCED_PIO) > 0;
  // Only the transmitter: reads still exit, and find the writes before them in the ring.
  if (coalescesSerial) vm.coalescePortWrites(SERIAL0_PORT, 1);
  // What comes there is only kept until the access behind it, which exits.
  if (coalescesSerial && bridge !== undefined) vm.coalescePortWrites(PCI_CONFIG_PORT, 4);

  const mmapSize = system.vcpuMmapSize();
  const { vcpus, cpuids } = createVcpus(inputs, vm, mmapSize, undo);
  if (quirks !== undefined) for (const { run } of vcpus) GuestRegisters.enable(run);
  const shared = VmShared.create(vcpus.length, DEVICE_WORDS);
  if (saved !== undefined) {
    const canScaleTsc = system.checkExtension(KVM_CAP_TSC_CONTROL) > 0;
    const xsaveSize = xsaveBytes(system);
    vcpus.forEach((vcpu, index) => {
      const state = saved.vcpus[index];
      if (state !== undefined) loadVcpu(vcpu, state, { index, canScaleTsc, xsaveBytes: xsaveSize });
    });
    loadVm(vm, saved.vm);
  }
  return {
    vm,
    cpuids,
    vcpus,
    memory,
    written,
    deviceSupport,
    devices,
    ioEvents,
    pci:
      bridge === undefined
        ? undefined
        : {
            vm,
            bridge,
            hasDoorbells: hasIoeventfd,
            assigned: inputs.assigned,
            firstSlot: slotsBehind(memory).firstFree,
          },
    hasIoeventfd,
    command,
    quirks,
    rtcInterrupt: pulsed(vm, RTC_GSI),
    systemControl: pulsed(vm, ACPI_SCI_GSI),
    descriptor: {
      vcpus: vcpus.map(({ fd, run }) => ({ fd, runAddress: run.address })),
      mmapSize,
      shared: shared.buffer,
      memoryAddress: memory.hostAddress,
      memorySize: memory.size,
      writtenPagesAddress: written.address,
      vmFd: vm.fd,
      doorbellFd,
      coalescesSerial,
      virtioRanges: bridge === undefined ? ranges.map(({ gpa, length }) => ({ gpa, length })) : pciRanges(bridge),
      hasPci: bridge !== undefined,
      commandChannelGpa: command?.region.gpa ?? 0,
      isRestored: saved !== undefined,
      quirks,
    },
  };
}

function pulsed(vm: VmFd, gsi: number): InterruptLine {
  return {
    trigger: () => {
      vm.pulseIrqLine(gsi);
    },
  };
}

/** Numbers of memory slots behind those of RAM. */
function slotsBehind({ regions: { length } }: MappedGuestMemory) {
  return { registers: length, command: length + 1, firstFree: length + 2 };
}

/** Every slot before the irqchip: afterwards each costs a grace period of the host's kernel. */
function setMemory(
  { system, quirks, memory, command, addresses: { ranges } }: MachineInputs,
  vm: VmFd,
  undo: (unmake: () => void) => void,
): RegisterPages | undefined {
  // As expensive as a slot, for the same reason.
  if (quirks?.syscallStaysInUserMode === true) vm.exitOnMsrWrites([MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK]);
  const slots = slotsBehind(memory);
  memory.regions.forEach((region, slot) => {
    vm.setMemoryRegion(slot, region);
  });
  const registers = ranges.length === 0 ? undefined : RegisterPages.map(ranges.length);
  if (registers !== undefined) {
    undo(() => {
      registers.unmap();
    });
    if (system.checkExtension(KVM_CAP_READONLY_MEM) > 0) {
      vm.setMemoryRegion(slots.registers, registers.region, KVM_MEM_READONLY);
    }
  }
  if (command !== undefined) vm.setMemoryRegion(slots.command, command.region);
  if (system.checkExtension(KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) vm.setIdentityMapAddress(KVM_IDENTITY_MAP_GPA);
  if (system.checkExtension(KVM_CAP_SET_TSS_ADDR) > 0) vm.setTssAddress(KVM_TSS_GPA);
  return registers;
}

function createVcpus(
  inputs: MachineInputs,
  vm: VmFd,
  mmapSize: number,
  undo: (unmake: () => void) => void,
): { vcpus: VcpuFd[]; cpuids: (readonly CpuidEntry[])[] } {
  const vcpus: VcpuFd[] = [];
  const cpuids: (readonly CpuidEntry[])[] = [];
  const bootCpuid = inputs.saved === undefined ? cpuidOfHost(inputs) : undefined;
  for (let index = 0; index < inputs.config.cpus; index++) {
    const vcpu = vm.createVcpu(index, mmapSize);
    undo(() => {
      vcpu.close();
    });
    const cpuid = inputs.saved?.vcpus[index]?.cpuid ?? bootCpuid?.(index) ?? [];
    loading(`the CPUID of vCPU ${String(index)}`, () => {
      vcpu.setCpuid(cpuid);
    });
    if (bootCpuid !== undefined) setUpForBoot(vcpu, index, cpuid, inputs.cpuTemplate);
    vcpus.push(vcpu);
    cpuids.push(cpuid);
  }
  return { vcpus, cpuids };
}

/** What the vCPU of each index shows of this host's processor. */
function cpuidOfHost({ system, config, quirks, cpuTemplate }: MachineInputs): (index: number) => CpuidEntry[] {
  const all = system.supportedCpuid();
  const supported = cpuTemplate === undefined ? all : throughTemplate(all, cpuTemplate);
  const tscDeadline = system.checkExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  const { cpus: count, nested } = config;
  const threadsPerCore = config.smt ? 2 : 1;
  // A KVM that emulates kernel code emulates a hypercall's instruction again and again: the guest would hang in its
  // first one, as with several vCPUs and `noapic`, where each interrupt to another processor is one.
  const hypercalls = quirks === undefined;
  return (index) => guestCpuid(supported, { index, count, threadsPerCore, nested, tscDeadline, hypercalls });
}

/** Throws HostError for an MSR that the host does not let be changed. */
function setTemplateMsrs(vcpu: VcpuFd, { name, msrs }: CpuTemplate): void {
  for (const { index, mask, value } of msrs) {
    const [now] = vcpu.getMsrs([index]);
    // One that is not there shows nothing.
    if (now === undefined && value === 0n) continue;
    const wanted = ((now ?? 0n) & ~mask) | (value & mask);
    if (wanted === now || vcpu.trySetMsr(index, wanted)) continue;
    throw new HostError(
      `CPU template ${name}: this KVM does not take MSR 0x${index.toString(16)} = 0x${wanted.toString(16)}`,
      { cure: "use another template, or a newer host kernel" },
    );
  }
}

/** As a firmware leaves a processor. */
function setUpForBoot(
  vcpu: VcpuFd,
  index: number,
  cpuid: readonly CpuidEntry[],
  cpuTemplate: CpuTemplate | undefined,
): void {
  vcpu.setMsrs(bootMsrs(cpuid));
  if (cpuTemplate !== undefined) setTemplateMsrs(vcpu, cpuTemplate);
  vcpu.resetFpu();
  const lapic = vcpu.getLapic();
  wireLocalInterrupts(lapic, index === 0);
  vcpu.setLapic(lapic);
}
