// Resolved config -> a VM ready for its first KVM_RUN, top to bottom in boot order: what the user asked for is
// opened and checked, a machine is created, Linux is booted into it. DESIGN.md, "Boot".
// What has been made is undone in reverse, on failure and on close.
import { deviceCount } from "../config/devices.js";
import { softwareKvmCmdline } from "../config/software-kvm.js";
import type { ResolvedConfig } from "../config/types.js";
import { probeQuirks } from "../fixups/probe.js";
import type { Quirks } from "../fixups/quirks.js";
import { KvmSystem } from "../kvm/system.js";
import { CommandPages } from "../memory/command-pages.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { MIB } from "../memory/layout.js";
import type { DeviceSupport } from "../virtio/device-support.js";
import type { KernelFormat } from "../x86/kernel.js";
import { virtioRanges } from "../x86/virtio-ranges.js";
import { createMachine, type Machine } from "./create.js";
import { checkHost } from "./host-check.js";
import { enterLinux, loadLinux, openImages, readLater } from "./linux.js";
import { UndoStack } from "./undo-stack.js";

/** A machine with a guest in it. */
export interface LiveParts extends Machine {
  readonly kernelFormat: KernelFormat;
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
  /** Takes all of the kernel's file as it is when it is booted, a piece at a time. */
  readonly readKernel?: ((pieces: Iterable<Uint8Array>) => void) | undefined;
}

/**
 * Throws ConfigError, DiskError, KernelImageError, HostError, KvmIoctlError or SystemCallError, and leaves nothing
 * behind then.
 */
export function buildVm(config: ResolvedConfig, options: BuildOptions = {}): LiveParts {
  const undo = new UndoStack();
  // For the time of the build: image files, /dev/kvm.
  const files = new UndoStack();
  const reads: Promise<void>[] = [];
  undo.add(() => {
    files.run();
  });
  try {
    return build(config, undo, files, reads, options);
  } catch (error) {
    abandonAfter(reads, undo);
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
    loadLinux(config, virtioRanges(deviceCount(config)), memory, images);
  } finally {
    undo.run();
  }
}

function build(
  config: ResolvedConfig,
  undo: UndoStack,
  files: UndoStack,
  reads: Promise<void>[],
  { known, deviceSupport, readKernel }: BuildOptions,
): LiveParts {
  const images = openImages(config, (close) => {
    files.add(close);
  });

  if (deviceSupport === undefined && deviceCount(config) > 0) throw new Error("Devices without device support");
  const hostSides = new UndoStack();
  undo.add(() => {
    hostSides.run();
  });
  const factories = deviceSupport?.openDevices(config, (close) => hostSides.add(close)) ?? [];
  const ranges = virtioRanges(factories.length);

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
  readLater(images, reads);
  const kernel = loadLinux({ ...config, cmdline }, ranges, memory, images);
  readKernel?.(images.kernel.chunks());
  const command = config.commandChannel ? CommandPages.map() : undefined;
  if (command !== undefined) {
    undo.add(() => {
      command.unmap();
    });
  }
  const saved = undefined;
  const parts = { config, system, quirks, memory, command, saved, factories, ranges, deviceSupport };
  const machine = createMachine(parts, (unmake) => {
    undo.add(unmake);
  });
  enterLinux(machine.vcpus, kernel);
  const loaded = Promise.all(reads).then(() => undefined);
  // The caller hears of a failure when it waits for this, which may be later or never.
  void Promise.allSettled(reads).then(() => files.run());
  loaded.catch(() => undefined);
  return {
    ...machine,
    kernelFormat: kernel.format,
    loaded,
    closeDevices: () => {
      hostSides.run();
    },
    close: async () => {
      await Promise.allSettled(reads);
      undo.run();
    },
    abandon: () => {
      abandonAfter(reads, undo);
    },
  };
}
