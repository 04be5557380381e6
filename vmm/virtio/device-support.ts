// What only a VM with virtio devices needs, in one module: the command line loads it when a
// configuration asks for a device, because every start pays for the code that it loads.
import { DeviceHost, type DeviceFactory } from "./device-host.js";
import { DeviceLoop, type DeviceLoopHooks } from "./device-loop.js";
import type { InterruptLine, SharedWords } from "../../devices/contracts.js";
import type { ConsoleHost } from "../../devices/virtio/console/backend.js";
import type { ResolvedConfig } from "../config/types.js";
import { loadOpeners, openDevices, type DeviceOpeners } from "./openers.js";
import { IoEvents } from "./ioevents.js";
import type { PciDevices, PciParts } from "./pci-devices.js";
import type { VmFd } from "../kvm/vm-fd.js";
import type { AssignedDevices } from "../pci/vfio/assigned-devices.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import type { VmShared } from "../vcpu/shared.js";
import type { VirtioMmioRange } from "../x86/acpi/dsdt.js";

/** What the builder has made of the devices. */
export interface DeviceParts {
  readonly memory: MappedGuestMemory;
  /** One for each virtio-mmio device, with its interrupt and the registers as the guest reads them. */
  readonly devices: readonly {
    readonly factory: DeviceFactory;
    readonly interrupt: InterruptLine;
    readonly connectInterrupt: (fd: number) => void;
    readonly registers: Int32Array;
  }[];
  /** Undefined where KVM has no ioeventfd, and with a PCI bus, which has its own. */
  readonly ioEvents: IoEvents | undefined;
  /** The bus that they are on; undefined without one. */
  readonly pci: PciParts | undefined;
}

/** What the devices want of the VM around them. */
export interface DeviceHostHooks extends DeviceLoopHooks {
  readonly shared: VmShared;
  readonly vcpus: number;
  /** The shared words of device `device`. */
  words(device: number): SharedWords;
  /** An interrupt is on its way to the guest, which may rest without a thread. */
  interruptRaised(): void;
  /** Takes a line for the log. */
  report(line: string): void;
  /** The terminal behind a virtio console. */
  readonly consoleHost: ConsoleHost;
  /** What the guest's metadata service gives out. */
  metadata(): unknown;
}

type PciDevicesClass = typeof PciDevices;
type AssignedDevicesClass = typeof AssignedDevices;

function createHost(parts: DeviceParts, hooks: DeviceHostHooks, Places: PciDevicesClass | undefined): DeviceHost {
  if (parts.pci !== undefined && Places === undefined) throw new Error("A PCI bus, and nothing that makes one");
  const loop = new DeviceLoop(hooks);
  const places =
    parts.pci === undefined || Places === undefined
      ? undefined
      : new Places(parts.pci, {
          memory: parts.memory,
          virtioDevices: parts.devices.length,
          interruptRaised: () => {
            hooks.interruptRaised();
          },
          guard: (task) => {
            loop.guard(task);
          },
          report: (line) => {
            hooks.report(line);
          },
        });
  return new DeviceHost({
    devices: parts.devices.map(({ factory, interrupt, connectInterrupt, registers }) => ({
      factory,
      registers,
      connectInterrupt,
      interrupt: {
        trigger: () => {
          interrupt.trigger();
          hooks.interruptRaised();
        },
      },
    })),
    memory: parts.memory,
    shared: hooks.shared,
    vcpus: hooks.vcpus,
    words: (device) => hooks.words(device),
    loop,
    report: (line) => {
      hooks.report(line);
    },
    consoleHost: hooks.consoleHost,
    metadata: () => hooks.metadata(),
    events: places?.doorbells ?? parts.ioEvents,
    places,
  });
}

export interface DeviceSupport {
  openDevices(config: ResolvedConfig, undo: (close: () => void) => void): DeviceFactory[];
  /** Undefined if the configuration asks for none. Throws HostError. */
  openAssigned(config: ResolvedConfig, undo: (close: () => void) => void): AssignedDevices | undefined;
  createHost(parts: DeviceParts, hooks: DeviceHostHooks): DeviceHost;
  createEvents(vm: VmFd, ranges: readonly VirtioMmioRange[]): IoEvents;
}

/** `places` makes the PCI bus of a configuration that asks for one, `assigned` opens devices of the host. */
export function deviceSupport(
  openers: DeviceOpeners,
  places?: PciDevicesClass,
  assigned?: AssignedDevicesClass,
): DeviceSupport {
  return {
    openDevices: (config, undo) => openDevices(openers, config, undo),
    openAssigned: ({ vfio }, undo) => {
      if (vfio.length === 0) return undefined;
      if (assigned === undefined) throw new Error("Devices of the host, and nothing that opens them");
      const opened = assigned.open(vfio);
      undo(() => {
        opened.close();
      });
      return opened;
    },
    createHost: (parts, hooks) => createHost(parts, hooks, places),
    createEvents: (vm, ranges) => new IoEvents(vm, ranges),
  };
}

/** With the kinds of devices that the configuration asks for. */
export async function loadDeviceSupport(config: ResolvedConfig): Promise<DeviceSupport> {
  const places = config.pci ? (await import("./pci-devices.js")).PciDevices : undefined;
  const assigned =
    config.vfio.length > 0 ? (await import("../pci/vfio/assigned-devices.js")).AssignedDevices : undefined;
  return deviceSupport(await loadOpeners(config), places, assigned);
}
