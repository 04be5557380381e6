// Devices of this host that the guest is given: what a caller may ask for, checked as far as that goes without the host.
import type { Checked } from "./check.js";
import { show } from "./show.js";

/** A PCI function of this host. */
export interface VfioConfig {
  /** Its address, such as "0000:01:00.1" or "01:00.1", or its folder below /sys. */
  readonly device: string;
}

/** Each takes a device number of the guest's bus. */
export const MAX_VFIO_DEVICES = 8;

export const VFIO_SCHEMA = {
  type: "array",
  items: {
    type: "object",
    title: "Assigned device",
    properties: { device: { type: "string", pattern: "^[^\\0]+$", "x-expected": "the address of a PCI device" } },
    required: ["device"],
    additionalProperties: false,
  },
  maxItems: MAX_VFIO_DEVICES,
} as const;

const ADDRESS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])$/i;

/** The address as the host's kernel writes it; undefined for what is none. */
export function pciAddress(text: string): string | undefined {
  const [last = ""] = text.startsWith("/sys/") ? text.replace(/\/+$/, "").split("/").slice(-1) : [text];
  const [, domain = "0000", rest] = ADDRESS.exec(last) ?? [];
  return rest === undefined ? undefined : `${domain}:${rest}`.toLowerCase();
}

/** Addresses of all; what is wrong with them goes into `problems`. */
export function resolveVfio(
  devices: readonly (Checked<(typeof VFIO_SCHEMA)["items"]> | undefined)[],
  hasBalloon: boolean,
  problems: string[],
): string[] {
  const addresses = devices.flatMap((given, index) => {
    if (given?.device === undefined) return [];
    const address = pciAddress(given.device);
    if (address === undefined) {
      const what = "neither the address of a PCI device, such as 0000:01:00.1, nor its folder below /sys";
      problems.push(`Assigned device ${String(index + 1)}: device ${show(given.device)} is ${what}`);
    }
    return address ?? [];
  });
  for (const address of new Set(addresses.filter((one, at) => addresses.indexOf(one) !== at))) {
    problems.push(`PCI device ${address} is given more than once`);
  }
  if (hasBalloon && devices.length > 0) {
    problems.push(
      "A balloon is of no use beside an assigned device, for which all of the guest's memory is pinned (vfio)",
    );
  }
  return addresses;
}
