// Resolved config -> a VM ready for its first KVM_RUN, top to bottom in boot order.
// What has been made is undone in reverse, on failure and on close.
import { closeSync } from "node:fs";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError, HostError } from "../errors.js";
import { deviceCount } from "../config/devices.js";
import { softwareKvmCmdline } from "../config/software-kvm.js";
import type { DeviceParts, DeviceSupport } from "../virtio/device-support.js";
import { GuestRegisters } from "../fixups/guest-registers.js";
import { probeQuirks } from "../fixups/probe.js";
import type { Quirks } from "../fixups/quirks.js";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from "../fixups/syscall.js";
import { FileImage } from "../x86/file-image.js";
import { KvmSystem } from "../kvm/system.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import type { VmFd } from "../kvm/vm-fd.js";
import { e820Entries } from "../memory/e820.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { RegisterPages } from "../virtio/register-pages.js";
import { KVM_IDENTITY_MAP_GPA, KVM_TSS_GPA, MIB, SERIAL0_GSI, SERIAL0_PORT } from "../memory/layout.js";
import {
  KVM_CAP_COALESCED_PIO,
  KVM_CAP_IMMEDIATE_EXIT,
  KVM_CAP_IOEVENTFD,
  KVM_CAP_IRQCHIP,
  KVM_CAP_IRQFD,
  KVM_CAP_MAX_VCPUS,
  KVM_CAP_PIT2,
  KVM_CAP_READONLY_MEM,
  KVM_CAP_SET_IDENTITY_MAP_ADDR,
  KVM_CAP_SET_TSS_ADDR,
  KVM_CAP_TSC_DEADLINE_TIMER,
  KVM_CAP_USER_MEMORY,
  KVM_MEM_READONLY,
} from "../sys/kvm-abi.js";
import { eventfd } from "../sys/events.js";
import type { MachineDescriptor } from "../vcpu/messages.js";
import { DEVICE_WORDS } from "./thread-machine.js";
import { VmShared } from "../vcpu/shared.js";
import type { VirtioMmioWindow } from "../x86/acpi/dsdt.js";
import { writeAcpiTables } from "../x86/acpi/tables.js";
import { writeBootParams } from "../x86/boot-params.js";
import { checkCmdline, writeCmdline } from "../x86/cmdline.js";
import { guestCpuid } from "../x86/cpuid.js";
import { writeGdt } from "../x86/gdt.js";
import { placeInitrd, type InitrdRange } from "../x86/initrd.js";
import { loadKernel, type KernelFormat, type LoadedKernel } from "../x86/kernel.js";
import { wireLocalInterrupts } from "../x86/lapic.js";
import { writeMpTable } from "../x86/mptable.js";
import { bootMsrs } from "../x86/msrs.js";
import { writePageTables } from "../x86/page-tables.js";
import { writeStartInfo } from "../x86/pvh.js";
import { entryCode, entryRegs, setEntrySregs } from "../x86/regs.js";
import { virtioParameters, virtioWindows } from "../x86/virtio-windows.js";

/** What a VM consists of while it lives. */
export interface LiveParts extends DeviceParts {
  readonly vcpus: readonly VcpuFd[];
  readonly descriptor: MachineDescriptor;
  readonly kernelFormat: KernelFormat;
  /** Undefined without devices. */
  readonly deviceSupport: DeviceSupport | undefined;
  /** What this KVM leaves to the monitor; undefined on hardware. */
  readonly quirks: Quirks | undefined;
  /** Closes what the devices hold on the host, the last one first: files, interfaces, sockets. */
  closeDevices(): void;
  /** Frees everything; only once no thread uses it any more. */
  close(): void;
}

/** Capabilities without which nothing works here, with their UAPI names for the message. */
export const REQUIRED_CAPABILITIES: readonly (readonly [name: string, capability: number])[] = [
  ["KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP],
  ["KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY],
  ["KVM_CAP_IRQFD", KVM_CAP_IRQFD],
  ["KVM_CAP_PIT2", KVM_CAP_PIT2],
  ["KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT],
];

/** Cleanups in the order in which they were added; run in reverse. */
class UndoStack {
  readonly #undos: (() => void)[] = [];

  add(undo: () => void): void {
    this.#undos.push(undo);
  }

  run(): void {
    for (let undo = this.#undos.pop(); undo !== undefined; undo = this.#undos.pop()) undo();
  }
}

export interface BuildOptions {
  /** Spares a second probe to a caller who has made one. */
  readonly known?: { readonly quirks: Quirks | undefined };
  /** A must for a configuration with devices. */
  readonly deviceSupport?: DeviceSupport | undefined;
}

/** Throws ConfigError, DiskError, KernelImageError, HostError or KvmIoctlError, and leaves nothing behind then. */
export function buildVm(config: ResolvedConfig, options: BuildOptions = {}): LiveParts {
  const undo = new UndoStack();
  try {
    return build(config, undo, options);
  } catch (error) {
    undo.run();
    throw error;
  }
}

/** Finds whatever is wrong with kernel, initrd and command line without KVM; throws as buildVm does. */
export function checkGuest(config: ResolvedConfig): void {
  const undo = new UndoStack();
  try {
    const images = openImages(config, undo);
    const memory = MappedGuestMemory.map(config.memoryMib * MIB);
    undo.add(() => {
      memory.unmap();
    });
    loadGuest(config, virtioWindows(deviceCount(config)), memory, images);
  } finally {
    undo.run();
  }
}

interface Images {
  readonly kernel: FileImage;
  readonly initrd: FileImage | undefined;
}

function openImages(config: ResolvedConfig, undo: UndoStack): Images {
  const open = (path: string): FileImage => {
    const image = FileImage.open(path);
    undo.add(() => {
      image.close();
    });
    return image;
  };
  return { kernel: open(config.kernel), initrd: config.initrd === undefined ? undefined : open(config.initrd) };
}

function build(config: ResolvedConfig, undo: UndoStack, { known, deviceSupport }: BuildOptions): LiveParts {
  const files = new UndoStack();
  undo.add(() => {
    files.run();
  });
  const images = openImages(config, files);

  if (deviceSupport === undefined && deviceCount(config) > 0) throw new Error("Devices without device support");
  const hostSides = new UndoStack();
  undo.add(() => {
    hostSides.run();
  });
  const factories = deviceSupport?.openDevices(config, (close) => hostSides.add(close)) ?? [];
  const windows = virtioWindows(factories.length);

  const system = KvmSystem.open();
  files.add(() => {
    system.close();
  });
  checkHost(system, config);
  const { quirks } = known ?? { quirks: probeQuirks(system) };

  const memory = MappedGuestMemory.map(config.memoryMib * MIB);
  undo.add(() => {
    memory.unmap();
  });
  const cmdline = quirks === undefined ? config.cmdline : `${softwareKvmCmdline(quirks.tscKhz)} ${config.cmdline}`;
  const kernel = loadGuest({ ...config, cmdline }, windows, memory, images);

  const vm = system.createVm();
  undo.add(() => {
    vm.close();
  });
  // Before the irqchip, like the slots: afterwards each costs a grace period of the host's kernel.
  if (quirks?.syscallStaysInUserMode === true) vm.exitOnMsrWrites([MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK]);
  // Every slot before the irqchip: see VmFd.setMemoryRegion.
  memory.regions.forEach((region, slot) => {
    vm.setMemoryRegion(slot, region);
  });
  const pages = windows.length === 0 ? undefined : RegisterPages.map(windows.length);
  undo.add(() => {
    pages?.unmap();
  });
  if (pages !== undefined && system.checkExtension(KVM_CAP_READONLY_MEM) > 0) {
    vm.setMemoryRegion(memory.regions.length, pages.region, KVM_MEM_READONLY);
  }
  if (system.checkExtension(KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) vm.setIdentityMapAddress(KVM_IDENTITY_MAP_GPA);
  if (system.checkExtension(KVM_CAP_SET_TSS_ADDR) > 0) vm.setTssAddress(KVM_TSS_GPA);
  vm.createIrqchip();
  vm.createPit2();

  const newEventfd = (): number => {
    const fd = eventfd();
    undo.add(() => {
      closeSync(fd);
    });
    return fd;
  };
  const doorbellFd = newEventfd();
  const serialIrqFd = newEventfd();
  vm.connectIrqfd(serialIrqFd, SERIAL0_GSI);
  const devices = factories.map((factory, index) => {
    const irqFd = newEventfd();
    vm.connectIrqfd(irqFd, windows[index]?.gsi ?? 0);
    return { factory, irqFd, registers: pages?.words(index) ?? new Int32Array(0) };
  });
  const hasIoeventfd = system.checkExtension(KVM_CAP_IOEVENTFD) > 0;
  const ioEvents = hasIoeventfd ? deviceSupport?.createEvents(vm, windows) : undefined;
  const coalescesSerial = system.checkExtension(KVM_CAP_COALESCED_PIO) > 0;
  // Only the transmitter: reads still exit, and find the writes before them in the ring.
  if (coalescesSerial) vm.coalescePortWrites(SERIAL0_PORT, 1);

  const mmapSize = system.vcpuMmapSize();
  const vcpus = createVcpus(system, vm, config, mmapSize, undo);
  setEntryState(vcpus, kernel);
  if (quirks !== undefined) for (const { run } of vcpus) GuestRegisters.enable(run);
  files.run();

  const shared = VmShared.create(vcpus.length, DEVICE_WORDS);
  return {
    vcpus,
    memory,
    kernelFormat: kernel.format,
    deviceSupport,
    devices,
    ioEvents,
    quirks,
    descriptor: {
      vcpus: vcpus.map(({ fd, run }) => ({ fd, runAddress: run.address })),
      mmapSize,
      shared: shared.buffer,
      memoryAddress: memory.hostAddress,
      memorySize: memory.size,
      serialIrqFd,
      doorbellFd,
      coalescesSerial,
      virtioDevices: devices.length,
      quirks,
    },
    closeDevices: () => {
      hostSides.run();
    },
    close: () => {
      undo.run();
    },
  };
}

function checkHost(system: KvmSystem, config: ResolvedConfig): void {
  const missing = REQUIRED_CAPABILITIES.filter(([, capability]) => system.checkExtension(capability) <= 0);
  if (missing.length > 0) {
    throw new HostError(`This KVM lacks ${missing.map(([name]) => name).join(", ")}`, {
      cure: "use a newer host kernel, or --accel lab",
    });
  }
  const maxVcpus = system.checkExtension(KVM_CAP_MAX_VCPUS);
  if (maxVcpus > 0 && config.cpus > maxVcpus) {
    throw new ConfigError([
      `Number of vCPUs ${String(config.cpus)} is more than the ${String(maxVcpus)} that this KVM allows`,
    ]);
  }
}

/** Fills guest memory: kernel, initrd, command line and every table. */
function loadGuest(
  config: ResolvedConfig,
  virtio: readonly VirtioMmioWindow[],
  memory: MappedGuestMemory,
  { kernel: kernelFile, initrd: initrdFile }: Images,
): LoadedKernel {
  kernelFile.memory = memory;
  const kernel = loadKernel(kernelFile, memory, config.protocol);
  // Our words first: after a "--" of the user's the kernel reads no more parameters.
  const cmdline = [...virtioParameters(virtio), config.cmdline].join(" ");
  writeCmdline(memory, checkCmdline(cmdline, kernel.cmdlineMax));
  let initrd: InitrdRange | undefined;
  if (initrdFile !== undefined) {
    initrd = placeInitrd(initrdFile.path, initrdFile.size, memory.size, kernel.end, kernel.initrdAddrMax);
    initrdFile.memory = memory;
    initrdFile.readInto(0, initrd.gpa, initrd.size);
  }
  const e820 = e820Entries(memory.size);
  writeMpTable(memory, config.cpus);
  const rsdpGpa = writeAcpiTables(memory, { cpus: config.cpus, virtio });
  writeGdt(memory, entryCode(kernel.format));
  if (kernel.format === "elf-pvh") {
    writeStartInfo(memory, { e820, initrd, rsdpGpa });
  } else {
    writePageTables(memory);
    writeBootParams(memory, { setupHeader: kernel.setupHeader, e820, initrd, rsdpGpa });
  }
  return kernel;
}

function createVcpus(system: KvmSystem, vm: VmFd, config: ResolvedConfig, mmapSize: number, undo: UndoStack): VcpuFd[] {
  const supported = system.supportedCpuid();
  const tscDeadline = system.checkExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  return Array.from({ length: config.cpus }, (_, index) => {
    const vcpu = vm.createVcpu(index, mmapSize);
    undo.add(() => {
      vcpu.close();
    });
    const cpuid = guestCpuid(supported, { index, count: config.cpus, nested: config.nested, tscDeadline });
    vcpu.setCpuid(cpuid);
    vcpu.setMsrs(bootMsrs(cpuid));
    vcpu.resetFpu();
    const lapic = vcpu.getLapic();
    wireLocalInterrupts(lapic, index === 0);
    vcpu.setLapic(lapic);
    return vcpu;
  });
}

/** The boot processor's registers; the others wait for their start-up interrupt as KVM made them. */
function setEntryState([boot]: readonly VcpuFd[], kernel: LoadedKernel): void {
  if (boot === undefined) throw new HostError("A VM needs at least one vCPU");
  const sregs = boot.getSregs();
  setEntrySregs(sregs, kernel.format);
  boot.setSregs(sregs);
  boot.setRegs(entryRegs(kernel.format, kernel.entry));
}
