// What only a VM with virtio devices needs, behind one door: the command line walks through it
// when a configuration asks for a device, because every start pays for code that it loads.
import type { LiveParts } from "./builder.js";
import { DeviceHost, type DeviceFactory } from "./device-host.js";
import { DeviceLoop, type DeviceLoopHooks } from "./device-loop.js";
import type { ConsoleHost } from "../devices/virtio/console/backend.js";
import type { ResolvedConfig } from "./config/types.js";
import { loadOpeners, openDevices, type DeviceOpeners } from "./devices.js";
import { IoEvents } from "./ioevents.js";
import type { VmFd } from "./kvm/vm-fd.js";
import { signalEventfd } from "./sys/libc.js";
import { DEVICE_WORDS, virtioWords } from "./vcpu/machine.js";
import { VmShared } from "./vcpu/shared.js";
import type { VirtioMmioWindow } from "./x86/acpi/dsdt.js";

/** What the devices want of the VM around them. */
export interface DeviceHostHooks extends DeviceLoopHooks {
  /** Takes a line for the log. */
  report(line: string): void;
  /** The terminal behind a virtio console. */
  readonly consoleHost: ConsoleHost;
}

function createHost(parts: LiveParts, hooks: DeviceHostHooks): DeviceHost {
  const vcpus = parts.vcpus.length;
  const shared = VmShared.attach(parts.descriptor.shared, vcpus, DEVICE_WORDS);
  return new DeviceHost({
    devices: parts.devices.map(({ factory, irqFd, registers }) => ({
      factory,
      registers,
      interrupt: {
        trigger: () => {
          signalEventfd(irqFd);
        },
      },
    })),
    memory: parts.memory,
    shared,
    vcpus,
    words: (device) => virtioWords(shared, device),
    loop: new DeviceLoop(hooks),
    report: (line) => {
      hooks.report(line);
    },
    consoleHost: hooks.consoleHost,
    events: parts.ioEvents,
  });
}

export interface DeviceSupport {
  openDevices(config: ResolvedConfig, undo: (close: () => void) => void): DeviceFactory[];
  readonly createHost: typeof createHost;
  createEvents(vm: VmFd, windows: readonly VirtioMmioWindow[]): IoEvents;
}

export function deviceSupport(openers: DeviceOpeners): DeviceSupport {
  return {
    openDevices: (config, undo) => openDevices(openers, config, undo),
    createHost,
    createEvents: (vm, windows) => new IoEvents(vm, windows),
  };
}

/** With the kinds of devices that the configuration asks for. */
export async function loadDeviceSupport(config: ResolvedConfig): Promise<DeviceSupport> {
  return deviceSupport(await loadOpeners(config));
}
