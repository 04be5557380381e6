// Resolved config -> a VM ready for its first KVM_RUN, top to bottom in boot order: what the user asked for is
// opened and checked, a machine is created, Linux is booted into it. DESIGN.md, "Boot".
// What has been made is undone in reverse, on failure and on close.
import type { StateReader } from "../../devices/state.js";
import { deviceCount } from "../config/devices.js";
import { withoutSharing } from "../config/nets.js";
import { softwareKvmCmdline } from "../config/software-kvm.js";
import type { ResolvedConfig } from "../config/types.js";
import { knownQuirks } from "../fixups/probe.js";
import type { Quirks } from "../fixups/quirks.js";
import { KvmSystem } from "../kvm/system.js";
import { CommandPages } from "../memory/command-pages.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { MIB } from "../memory/layout.js";
import type { SavedMemory } from "../memory/saved-memory.js";
import type { DeviceFactory } from "../virtio/device-host.js";
import type { DeviceSupport } from "../virtio/device-support.js";
import type { CpuTemplate } from "../x86/cpu-template.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import type { KernelFormat } from "../x86/kernel.js";
import { deviceAddresses } from "../x86/virtio-ranges.js";
import { BootMemory } from "./boot-memory.js";
import { createMachine, type Machine, type SavedMachine } from "./create.js";
import { checkCpuTemplate, checkHost } from "./host-check.js";
import { bootImagesOf, enterLinux, loadImages, openImages, writeTables, type BootImages } from "./linux.js";
import { UndoStack } from "./undo-stack.js";

/** All of a VM that a snapshot keeps, but for its memory. */
export interface SavedVm {
  readonly machine: SavedMachine;
  /** The processor's own CPUID where it was booted, if that is what it has seen; else empty. */
  readonly native: readonly CpuidEntry[];
  readonly kernelFormat: KernelFormat;
  /** Of the legacy devices, as saved by thread-machine.ts. */
  readonly legacy: StateReader;
  /** Of the virtio devices, as saved by DeviceHost; by name. */
  readonly devices: StateReader;
  /** Of the command's channel; null without one. */
  readonly channel: StateReader;
  readonly images: BootImages;
}

/** A machine with a guest in it. */
export interface LiveParts extends Machine {
  readonly config: ResolvedConfig;
  /** What it goes on with, and what its memory was made of; undefined if it boots. */
  readonly saved: (SavedVm & { readonly source: SavedMemory }) | undefined;
  readonly kernelFormat: KernelFormat;
  /** What was booted. */
  readonly images: BootImages;
  /** The event loop has more to do than this VM. */
  readonly hearsOwner: boolean;
  /** Settles when kernel and initrd are in guest memory; rejects with KernelImageError or SystemCallError. */
  readonly loaded: Promise<void>;
  /** Closes what the devices hold on the host, the last one first: files, interfaces, sockets. */
  closeDevices(): void;
  /** Frees everything, once kernel and initrd are read; only when no vCPU's thread uses it any more. */
  close(): Promise<void>;
  /** The same after a failure; errors of closing are dropped, because the failure matters more. */
  abandon(): void;
}

export interface BuildOptions {
  /** Spares a second probe to a caller who has made one. */
  readonly known?: { readonly quirks: Quirks | undefined };
  /** Required for a configuration with devices. */
  readonly deviceSupport?: DeviceSupport | undefined;
  /** Required for a configuration with a CPU template. */
  readonly openCpuTemplate?: ((nameOrPath: string) => CpuTemplate) | undefined;
  /** Kernel and initrd in memory, or on the way there; it is the VM's from now on, or gone. It has to fit the configuration. */
  readonly bootMemory?: BootMemory | undefined;
  /** Takes all of the kernel's file as it is when it is booted, a piece at a time. */
  readonly readKernel?: ((pieces: Iterable<Uint8Array>) => void) | undefined;
  /** The caller waits for requests or input, too: a guest that begins on its thread leaves it often. */
  readonly hearsOwner?: boolean;
  /** A snapshot may be made of it, and go on much later. */
  readonly mayBeSaved?: boolean;
}

/**
 * Throws ConfigError, DiskError, KernelImageError, HostError, KvmIoctlError or SystemCallError, and leaves nothing
 * behind then.
 */
export function buildVm(config: ResolvedConfig, options: BuildOptions = {}): LiveParts {
  const undo = { all: new UndoStack(), files: new UndoStack() };
  undo.all.add(() => {
    undo.files.run();
  });
  const { bootMemory = new BootMemory(config) } = options;
  undo.all.add(() => {
    bootMemory.close();
  });
  try {
    return build(config, undo, bootMemory, options);
  } catch (error) {
    abandonAfter(bootMemory.reads, undo.all);
    throw error;
  }
}

/** A thread that still reads writes to the memory that goes. */
function abandonAfter(reads: readonly Promise<void>[], undo: UndoStack): void {
  if (reads.length === 0) undo.abandon();
  else void Promise.allSettled(reads).then(() => undo.abandon());
}

/** Finds every fault of kernel, initrd and command line without KVM; throws as buildVm does. */
export function checkGuest(config: ResolvedConfig): void {
  const undo = new UndoStack();
  try {
    const images = openImages(config, (close) => {
      undo.add(close);
    });
    const memory = MappedGuestMemory.map(config.memoryMib * MIB);
    undo.add(() => {
      memory.unmap();
    });
    const addresses = deviceAddresses(deviceCount(config), config.pci, memory.size);
    writeTables(config, addresses, memory, loadImages(config, memory, images));
  } finally {
    undo.run();
  }
}

/** Removes what has been made, when it goes. */
interface Undo {
  /** At the end of the VM. */
  readonly all: UndoStack;
  /** For the time of the build: image files, /dev/kvm. */
  readonly files: UndoStack;
}

/** What a machine needs on this host, whatever will run in it. */
function prepare(
  config: ResolvedConfig,
  undo: Undo,
  { known, deviceSupport }: BuildOptions,
  {
    cpuTemplate,
    forDevices = config,
  }: { readonly cpuTemplate?: CpuTemplate | undefined; readonly forDevices?: ResolvedConfig },
) {
  if (deviceSupport === undefined && (deviceCount(config) > 0 || config.pci))
    throw new Error("Devices without device support");
  const hostSides = new UndoStack();
  undo.all.add(() => {
    hostSides.run();
  });
  const factories = deviceSupport?.openDevices(forDevices, (close) => hostSides.add(close)) ?? [];
  const assigned = deviceSupport?.openAssigned(config, (close) => hostSides.add(close));
  const system = KvmSystem.open();
  undo.files.add(() => {
    system.close();
  });
  checkHost(system, config);
  const { quirks } = known ?? { quirks: knownQuirks(system) };
  if (cpuTemplate !== undefined) checkCpuTemplate(system, config, cpuTemplate, quirks !== undefined);
  return {
    config,
    system,
    quirks,
    cpuTemplate,
    factories,
    assigned,
    addresses: deviceAddresses(factories.length, config.pci, config.memoryMib * MIB),
    deviceSupport,
    hostSides,
  };
}

function templateOf({ cpuTemplate }: ResolvedConfig, { openCpuTemplate }: BuildOptions): CpuTemplate | undefined {
  if (cpuTemplate === undefined) return undefined;
  if (openCpuTemplate === undefined) throw new Error("A CPU template, and nothing that opens it");
  return openCpuTemplate(cpuTemplate);
}

/** Servers of the devices have the guest's memory, too. */
function sharesMemory(factories: readonly DeviceFactory[]): boolean {
  return factories.some((factory) => factory.sharesMemory === true);
}

function unmapLater(undo: UndoStack, memory: { unmap(): void } | undefined): void {
  if (memory === undefined) return;
  undo.add(() => {
    memory.unmap();
  });
}

function build(config: ResolvedConfig, undo: Undo, bootMemory: BootMemory, options: BuildOptions): LiveParts {
  const images = bootMemory.open();
  const { reads } = bootMemory;
  undo.files.add(() => {
    bootMemory.closeFiles();
  });
  const host = prepare(config, undo, options, { cpuTemplate: templateOf(config, options) });
  const { quirks, addresses } = host;
  const { memory, loaded: linux } = bootMemory.load(sharesMemory(host.factories));
  const cmdline =
    quirks === undefined ? config.cmdline : `${softwareKvmCmdline(quirks.tscKhz, options)} ${config.cmdline}`;
  writeTables({ ...config, cmdline }, addresses, memory, linux);
  options.readKernel?.(images.kernel.chunks());
  const command = config.commandChannel ? CommandPages.map() : undefined;
  unmapLater(undo.all, command);
  const machine = createMachine({ ...host, memory, command, saved: undefined }, (unmake) => {
    undo.all.add(unmake);
  });
  enterLinux(machine.vcpus, linux.kernel);
  const loaded = Promise.all(reads).then(() => undefined);
  // The caller hears of a failure when it waits for this, which may be later or never.
  void Promise.allSettled(reads).then(() => undo.files.run());
  loaded.catch(() => undefined);
  return {
    ...machine,
    config,
    kernelFormat: linux.kernel.format,
    images: bootImagesOf(images),
    hearsOwner: options.hearsOwner === true,
    loaded,
    saved: undefined,
    closeDevices: () => {
      host.hostSides.run();
    },
    close: async () => {
      await Promise.allSettled(reads);
      undo.all.run();
    },
    abandon: () => {
      abandonAfter(reads, undo.all);
    },
  };
}

/**
 * A machine that goes on where another was saved. What its memory is made of stays open while the VM lives. Throws as
 * buildVm does.
 */
export function restoreVm(
  config: ResolvedConfig,
  saved: SavedVm,
  source: SavedMemory,
  options: BuildOptions = {},
): LiveParts {
  const undo = { all: new UndoStack(), files: new UndoStack() };
  undo.all.add(() => {
    undo.files.run();
  });
  try {
    // Memory that others have is a copy of the saved one; what nobody else has comes page by page when it is needed.
    const isCopied = config.shares.length > 0;
    const forDevices = isCopied ? config : { ...config, nets: withoutSharing(config.nets) };
    const host = prepare(config, undo, options, { forDevices });
    const size = config.memoryMib * MIB;
    const memory = source.ram(size, sharesMemory(host.factories));
    unmapLater(undo.all, memory);
    const command = config.commandChannel ? source.channel(size) : undefined;
    unmapLater(undo.all, command);
    const machine = createMachine({ ...host, memory, command, saved: saved.machine }, (unmake) => {
      undo.all.add(unmake);
    });
    undo.files.run();
    return {
      ...machine,
      config,
      kernelFormat: saved.kernelFormat,
      images: saved.images,
      hearsOwner: options.hearsOwner === true,
      loaded: Promise.resolve(),
      saved: { ...saved, source },
      closeDevices: () => {
        host.hostSides.run();
      },
      close: () => {
        undo.all.run();
        return Promise.resolve();
      },
      abandon: () => {
        undo.all.abandon();
      },
    };
  } catch (error) {
    undo.all.abandon();
    throw error;
  }
}
