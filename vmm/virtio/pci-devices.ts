// The PCI root bus of a VM: virtio devices and those of the host that it has, who lies where, how they interrupt, their doorbells.
// Loaded only for a VM with a bus.
import type { BusDevice } from "../../devices/contracts.js";
import { hostBridge } from "../../devices/pci/host-bridge.js";
import { VIRTIO_PCI_BAR_LENGTH, VirtioPciFunction } from "../../devices/virtio/pci-function.js";
import type { TransportOptions } from "../../devices/virtio/transport.js";
import type { VmFd } from "../kvm/vm-fd.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import { MsiRoutes } from "../pci/msi-routes.js";
import { PciRootBus } from "../pci/root-bus.js";
import { BarAddresses } from "../pci/vfio/bar-addresses.js";
import type { AssignedDevices } from "../pci/vfio/assigned-devices.js";
import type { PciHostBridge } from "../x86/pci-host-bridge.js";
import type { PlacedDevice } from "./device-host.js";
import { PciDoorbells } from "./pci-doorbells.js";
import { PciInterrupts } from "./pci-interrupts.js";

/** What createMachine has made for them. */
export interface PciParts {
  readonly vm: VmFd;
  readonly bridge: PciHostBridge;
  /** KVM has ioeventfds. */
  readonly hasDoorbells: boolean;
  /** Devices of the host that the guest has; undefined without any. */
  readonly assigned: AssignedDevices | undefined;
  /** From here on, numbers of memory slots are free. */
  readonly firstSlot: number;
}

/** What it needs of the VM around it. */
export interface PciSurroundings {
  readonly memory: MappedGuestMemory;
  /** Virtio devices on the bus. */
  readonly virtioDevices: number;
  readonly interruptRaised: () => void;
  readonly guard: (task: () => void) => void;
  readonly report: (line: string) => void;
}

export class PciDevices {
  readonly bus: PciRootBus;
  /** What answers in each of pciRanges. */
  readonly registers: readonly BusDevice[];
  /** Undefined where KVM has none: then every notification is an exit. */
  readonly doorbells: PciDoorbells | undefined;
  readonly #parts: PciParts;
  readonly #interruptRaised: () => void;
  readonly #interrupts: PciInterrupts;
  /** By device. */
  readonly #functions: VirtioPciFunction[] = [];

  constructor(parts: PciParts, { memory, virtioDevices, interruptRaised, guard, report }: PciSurroundings) {
    const { window, highWindow } = parts.bridge;
    this.#parts = parts;
    this.#interruptRaised = interruptRaised;
    this.bus = new PciRootBus([window, highWindow]);
    this.bus.attach(0, hostBridge());
    this.registers = [this.bus.ecam, ...this.bus.windows.map(({ device }) => device)];
    this.doorbells = parts.hasDoorbells ? new PciDoorbells(parts.vm) : undefined;
    // KVM has one table of them.
    const routes = new MsiRoutes(parts.vm);
    this.#interrupts = new PciInterrupts(routes);
    parts.assigned?.attach({
      bus: this.bus,
      vm: parts.vm,
      routes,
      regions: memory.regions,
      addresses: new BarAddresses(window, highWindow, virtioDevices * VIRTIO_PCI_BAR_LENGTH),
      deviceNumber: virtioDevices + 1,
      firstSlot: parts.firstSlot,
      interruptRaised,
      guard,
      report,
    });
  }

  relayInterrupts(isOn: boolean): void {
    this.#parts.assigned?.relayInterrupts(isOn);
  }

  /** Why a guest with this bus cannot be saved; undefined if it can. */
  whyNotSaved(): string | undefined {
    return this.#parts.assigned === undefined
      ? undefined
      : "it has a device of this host (vfio), whose state nobody can read";
  }

  connectInterrupt(device: number, queueIndex: number, fd: number): void {
    const fn = this.#functions[device];
    if (fn === undefined) throw new Error(`Device ${String(device)} is not on the bus yet`);
    this.#interrupts.connect(device, queueIndex, fd, (index) => fn.queueMessage(index));
  }

  /** Device `device` of the configuration is device `device` + 1 of the bus. */
  place(options: TransportOptions, device: number): PlacedDevice {
    const fn = new VirtioPciFunction({
      ...options,
      address: this.#parts.bridge.window.gpa + device * VIRTIO_PCI_BAR_LENGTH,
      send: ({ addressLow, addressHigh, data }) => {
        this.#parts.vm.signalMsi(addressLow, addressHigh, data);
        this.#interruptRaised();
      },
      used: () => this.doorbells?.used(device),
      messagesChanged: () => {
        this.#interrupts.messagesChanged(device, messageOf);
      },
    });
    const messageOf = (queueIndex: number) => fn.queueMessage(queueIndex);
    this.#functions[device] = fn;
    fn.barPlaced = (_, gpa) => this.doorbells?.placed(device, gpa);
    this.bus.attach(device + 1, fn);
    return {
      transport: fn.transport,
      save: () => fn.save(),
      restore: (state, deviceState) => {
        fn.restoreWith(state, deviceState);
      },
    };
  }
}
