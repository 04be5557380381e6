// Which virtio devices a configuration asks for, and in which order they get their register ranges: the
// same for the same configuration, whatever the host.
import type { ResolvedConfig } from "./types.js";

/** Kinds in the order of their ranges. Disks first: their names in the guest count from there. */
export const DEVICE_KINDS = ["disk", "net", "vsock", "console", "rng", "balloon"] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

/** The parts of a configuration that describe devices. */
export type DeviceConfig = Pick<ResolvedConfig, "disks" | "nets" | "vsock" | "console" | "rng" | "balloon">;

/** Devices of each kind. */
export function countDevices(config: DeviceConfig): Readonly<Record<DeviceKind, number>> {
  return {
    disk: config.disks.length,
    net: config.nets.length,
    vsock: config.vsock === undefined ? 0 : 1,
    console: config.console === "virtio" ? 1 : 0,
    rng: config.rng ? 1 : 0,
    balloon: config.balloon === undefined ? 0 : 1,
  };
}

/** Devices in all, each of which takes a range of registers and an interrupt line. */
export function deviceCount(config: DeviceConfig): number {
  return Object.values(countDevices(config)).reduce((sum, count) => sum + count, 0);
}
