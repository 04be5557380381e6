// Which virtio devices a configuration asks for, and in which order they get their register ranges: the
// same for the same configuration, whatever the host.
import type { ResolvedConfig } from "./types.js";

/** Kinds in the order of their ranges. Disks first: their names in the guest count from there. */
export const DEVICE_KINDS = ["disk", "net", "vsock", "console", "rng", "balloon", "share"] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

/** The parts of a configuration that describe devices. */
export type DeviceConfig = Pick<ResolvedConfig, "disks" | "nets" | "vsock" | "console" | "rng" | "balloon" | "shares">;

/** Devices of each kind. */
export function countDevices(config: DeviceConfig): Readonly<Record<DeviceKind, number>> {
  return {
    disk: config.disks.length,
    net: config.nets.length,
    vsock: config.vsock === undefined ? 0 : 1,
    console: config.console === "virtio" ? 1 : 0,
    rng: config.rng ? 1 : 0,
    balloon: config.balloon === undefined ? 0 : 1,
    share: config.shares.length,
  };
}

/** Interrupt lines for devices that a guest has whose kernel leaves the I/O APIC alone: memory/layout.ts, VIRTIO_GSIS below 16. */
export const LINES_WITHOUT_IO_APIC = 9;

/** Why the devices cannot all have an interrupt, with these words for the kernel; undefined if they can. */
export function interruptProblem(count: number, cmdline: string): string | undefined {
  const words = cmdline.split(/\s+/);
  const end = words.indexOf("--");
  const word = (end < 0 ? words : words.slice(0, end)).find((one) => one === "noapic" || one === "nolapic");
  if (word === undefined || count <= LINES_WITHOUT_IO_APIC) return undefined;
  return `With ${word} the guest has interrupt lines for ${String(LINES_WITHOUT_IO_APIC)} virtio devices, not for ${String(count)}`;
}

/** Devices in all, each of which takes a range of registers and an interrupt line. */
export function deviceCount(config: DeviceConfig): number {
  return Object.values(countDevices(config)).reduce((sum, count) => sum + count, 0);
}
