// Where virtio devices are: on a PCI bus, or each in a range of virtio-mmio; and the parameters that tell a kernel without
// ACPI of the latter.
import { VIRTIO_GSIS, VIRTIO_MMIO_GPA, VIRTIO_MMIO_LENGTH } from "../memory/layout.js";
import type { VirtioMmioRange } from "./acpi/dsdt.js";
import { pciHostBridge, type PciHostBridge } from "./pci-host-bridge.js";

/** One of both. */
export interface DeviceAddresses {
  /** Of virtio-mmio. */
  readonly ranges: readonly VirtioMmioRange[];
  readonly pci: PciHostBridge | undefined;
}

/** Of `count` devices of a machine with so many bytes of RAM. */
export function deviceAddresses(count: number, hasPci: boolean, memorySize: number): DeviceAddresses {
  return hasPci ? { ranges: [], pci: pciHostBridge(memorySize) } : { ranges: virtioRanges(count), pci: undefined };
}

/** At most MAX_VIRTIO_DEVICES; config/resolve.ts checks that. */
export function virtioRanges(count: number): VirtioMmioRange[] {
  return VIRTIO_GSIS.slice(0, count).map((gsi, index) => ({
    gpa: VIRTIO_MMIO_GPA + index * VIRTIO_MMIO_LENGTH,
    length: VIRTIO_MMIO_LENGTH,
    gsi,
  }));
}

/**
 * Linux's parameters of virtio_mmio, in the order of the ranges. A kernel that has both this
 * (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES) and ACPI meets each device twice; the second claim of the
 * same range fails there and is harmless.
 */
export function virtioParameters(ranges: readonly VirtioMmioRange[]): string[] {
  return ranges.map(
    ({ gpa, length, gsi }) => `virtio_mmio.device=${String(length / 1024)}K@0x${gpa.toString(16)}:${String(gsi)}`,
  );
}
