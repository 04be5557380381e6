// Where the virtio-mmio devices are, and the parameters that tell a kernel without ACPI.
import { VIRTIO_GSIS, VIRTIO_MMIO_GPA, VIRTIO_MMIO_LENGTH } from "../memory/layout.js";
import type { VirtioMmioRange } from "./acpi/dsdt.js";

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
