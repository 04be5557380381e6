// Devices of the host that a guest is given: opened and checked before there is a VM, put on its bus when there is one, reset and
// given back at its end. Loaded only for a VM that has some.
import { AssignedFunction } from "../../../devices/pci/assigned-function.js";
import {
  assignedLayout,
  AssignedLayoutError,
  pbaLength,
  type AssignedLayout,
} from "../../../devices/pci/assigned-layout.js";
import { PCI_MSIX_ENTRY_SIZE } from "../../../devices/pci/constants.js";
import { HostError, SystemCallError } from "../../errors.js";
import type { VmFd } from "../../kvm/vm-fd.js";
import type { MemoryRegion } from "../../memory/guest-memory.js";
import { pciGsi } from "../../memory/layout.js";
import { EAGAIN } from "../../sys/errno.js";
import { VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX } from "../../sys/vfio-abi.js";
import type { MsiRoutes } from "../msi-routes.js";
import type { PciRootBus } from "../root-bus.js";
import type { BarAddresses } from "./bar-addresses.js";
import { BarSlots, SlotNumbers } from "./bar-slots.js";
import { VfioContainer } from "./container.js";
import type { DmaSpace } from "./dma-space.js";
import { VfioDevice, type MappedSpan } from "./device.js";
import { DeviceLoss } from "./device-loss.js";
import { assignableGroup } from "./host-devices.js";
import { AssignedInterrupts } from "./interrupts.js";
import { IommufdSpace } from "./iommufd.js";
import { without } from "./regions.js";

/** What they need of the machine. */
export interface AssignedPlace {
  readonly bus: PciRootBus;
  readonly vm: VmFd;
  /** Of the VM: there is one table of messages. */
  readonly routes: MsiRoutes;
  /** Guest RAM. */
  readonly regions: readonly MemoryRegion[];
  readonly addresses: BarAddresses;
  /** The first one's on the bus. */
  readonly deviceNumber: number;
  /** From here on, numbers of memory slots are free. */
  readonly firstSlot: number;
  readonly interruptRaised: () => void;
  readonly guard: (task: () => void) => void;
  readonly report: (line: string) => void;
}

interface Opened {
  readonly device: VfioDevice;
  readonly layout: AssignedLayout;
}

export class AssignedDevices {
  readonly #space: DmaSpace;
  readonly #opened: Opened[] = [];
  /** What stands between a device and the guest. */
  readonly #attached: { relay?(isOn: boolean): void; close(): void }[] = [];
  #report: (line: string) => void = () => undefined;

  private constructor(space: DmaSpace) {
    this.#space = space;
  }

  /** Throws HostError, and leaves nothing behind then. */
  static open(addresses: readonly string[]): AssignedDevices {
    // All of them first: what /sys tells needs no rights and opens nothing.
    const groups = addresses.map((address) => ({ address, group: assignableGroup(address) }));
    const isByIommufd = IommufdSpace.isFor(addresses);
    const devices = new AssignedDevices(isByIommufd ? IommufdSpace.open() : VfioContainer.open());
    try {
      for (const { address, group } of groups) devices.#open(address, group);
    } catch (error) {
      devices.close();
      throw error;
    }
    return devices;
  }

  #open(address: string, group: string): void {
    const fd = this.#space.openDevice(group, address);
    const device = VfioDevice.of(address, fd);
    try {
      // Whoever had it before has left it in some state.
      device.reset();
      const layout = assignedLayout(device.configBytes(), {
        barSizes: device.bars.map(({ size }) => size),
        hasLine: device.interrupts(VFIO_PCI_INTX_IRQ_INDEX) > 0,
        msiVectors: device.interrupts(VFIO_PCI_MSI_IRQ_INDEX),
        msixVectors: device.interrupts(VFIO_PCI_MSIX_IRQ_INDEX),
      });
      this.#opened.push({ device, layout });
    } catch (error) {
      device.close();
      if (!(error instanceof AssignedLayoutError)) throw error;
      throw new HostError(`Assigned device ${address}: it ${error.message}`);
    }
  }

  /** Throws HostError if the guest's memory cannot be pinned. */
  attach(place: AssignedPlace): void {
    const { bus, vm, routes, regions, addresses, deviceNumber, firstSlot, interruptRaised, guard } = place;
    this.#report = place.report;
    this.#space.map(regions);
    const numbers = new SlotNumbers(firstSlot);
    this.#opened.forEach(({ device, layout }, index) => {
      const report = (line: string): void => {
        place.report(`assigned device ${device.address}: ${line}`);
      };
      const gsi = pciGsi(deviceNumber + index);
      const interrupts = new AssignedInterrupts({
        source: device,
        layout,
        gsi,
        vm,
        routes,
        interruptRaised,
        guard,
        report,
      });
      this.#attached.push(interrupts, new DeviceLoss(device, guard));
      const fn = new AssignedFunction({
        name: device.address,
        host: device,
        layout,
        interrupts,
        addresses: addresses.place(layout.bars),
      });
      const slots = new BarSlots(vm, mapBars(device, layout), numbers);
      fn.barPlaced = (bar, gpa) => {
        slots.placed(bar, gpa);
      };
      bus.attach(deviceNumber + index, fn);
    });
  }

  /** As DeviceHost.relayInterrupts. */
  relayInterrupts(isOn: boolean): void {
    for (const part of this.#attached) part.relay?.(isOn);
  }

  /** The guest runs no more: no device writes to its memory or interrupts it from here on. */
  close(): void {
    for (const part of this.#attached.splice(0)) part.close();
    const opened = this.#opened.splice(0);
    try {
      for (const { device } of opened) this.#resetAtEnd(device);
      this.#space.unmap();
    } finally {
      for (const { device } of opened) device.close();
      this.#space.close();
    }
  }

  /** One that is gone cannot be; the others shall be all the same. */
  #resetAtEnd(device: VfioDevice): void {
    try {
      device.reset();
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      // The host's kernel is taking it away at this moment, and resets it itself.
      if (error.errno === EAGAIN) return;
      this.#report(`assigned device ${device.address}: it is not reset (${error.errnoName})`);
    }
  }
}

/** What the guest may reach by itself: all but the pages of the MSI-X table and of what is pending. */
function mapBars(device: VfioDevice, { bars, msix }: AssignedLayout): Map<number, MappedSpan[]> {
  const trapped =
    msix === undefined
      ? []
      : [
          { bar: msix.bar, offset: msix.tableOffset, length: PCI_MSIX_ENTRY_SIZE * msix.vectors },
          { bar: msix.pbaBar, offset: msix.pbaOffset, length: pbaLength(msix.vectors) },
        ];
  return new Map(
    bars.map(({ index }) => [
      index,
      device.map(
        index,
        without(
          device.bars[index]?.mappable ?? [],
          trapped.filter(({ bar }) => bar === index),
        ),
      ),
    ]),
  );
}
