// PCI devices of this host as /sys shows them: which IOMMU group each is in, who else is in it, what drives them. A group is
// handed over whole, because its members can reach each other behind the IOMMU's back.
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { HostError } from "../../errors.js";

const DEVICES = "sys/bus/pci/devices";
/** The driver that hands a device over. */
export const VFIO_PCI = "vfio-pci";
/** Drivers that touch nothing of a device: the kernel counts a group with them as free. */
const HARMLESS = [VFIO_PCI, "pci-stub", "pcieport"];
const CLASS_BRIDGE = 0x06;

export interface HostDevice {
  readonly address: string;
  /** Base class, sub-class, interface. */
  readonly classCode: number;
  readonly driver: string | undefined;
  /** Number of its IOMMU group; undefined if it has none. */
  readonly group: string | undefined;
  /** The other members. */
  readonly companions: readonly string[];
}

/** Undefined if there is none. `root` is another one in tests. */
export function hostDevice(address: string, root = "/"): HostDevice | undefined {
  const folder = `${root}${DEVICES}/${address}`;
  if (!existsSync(folder)) return undefined;
  const group = linkName(`${folder}/iommu_group`);
  const members = group === undefined ? [] : readdirSync(`${folder}/iommu_group/devices`);
  return {
    address,
    classCode: Number(readFileSync(`${folder}/class`, "latin1")),
    driver: linkName(`${folder}/driver`),
    group,
    companions: members.filter((member) => member !== address).sort(),
  };
}

/** Addresses of all that are no bridges. */
export function hostDevices(root = "/"): HostDevice[] {
  if (!existsSync(`${root}${DEVICES}`)) return [];
  return readdirSync(`${root}${DEVICES}`)
    .sort()
    .flatMap((address) => hostDevice(address, root) ?? [])
    .filter((device) => !isBridge(device));
}

/** Commands that give the device to vfio-pci, in one line of a shell; root's. */
export function bindCommand({ address, driver }: Pick<HostDevice, "address" | "driver">): string {
  const folder = `/sys/bus/pci/devices/${address}`;
  return [
    `modprobe ${VFIO_PCI}`,
    `echo ${VFIO_PCI} > ${folder}/driver_override`,
    ...(driver === undefined ? [] : [`echo ${address} > ${folder}/driver/unbind`]),
    `echo ${address} > /sys/bus/pci/drivers_probe`,
  ].join(" && ");
}

export interface Obstacle {
  readonly problem: string;
  readonly cure: string | undefined;
}

/** Why the device cannot be given to a guest now; undefined if it can, as far as /sys tells. */
export function obstacle(device: HostDevice, root = "/"): Obstacle | undefined {
  const { address, group, companions, driver } = device;
  if (isBridge(device))
    return { problem: `${address} is a bridge, not a device that a guest can have`, cure: undefined };
  if (group === undefined) {
    return {
      problem: `${address} is in no IOMMU group: this host's IOMMU is off, or there is none`,
      cure: "vmlet doctor --passthrough says how to turn it on",
    };
  }
  if (driver !== VFIO_PCI) {
    const problem = driver === undefined ? `no driver has ${address}` : `the driver ${driver} has ${address}`;
    return { problem: `${problem}; ${VFIO_PCI} must have it`, cure: bindCommand(device) };
  }
  const taken = companions
    .flatMap((companion) => hostDevice(companion, root) ?? [])
    .find((companion) => companion.driver !== undefined && !HARMLESS.includes(companion.driver));
  if (taken === undefined) return undefined;
  return {
    problem: `${address} is in IOMMU group ${group} with ${taken.address}, which the driver ${taken.driver ?? ""} has`,
    cure: bindCommand(taken),
  };
}

/** The group's number. Throws HostError for a device that is not there, or cannot be given to a guest now. */
export function assignableGroup(address: string, root = "/"): string {
  const device = hostDevice(address, root);
  if (device === undefined) {
    throw new HostError(`Assigned device ${address}: this host has no such PCI device`, {
      cure: "vmlet doctor --passthrough lists those that it has",
    });
  }
  const found = obstacle(device, root);
  if (found !== undefined) throw new HostError(`Assigned device ${address}: ${found.problem}`, { cure: found.cure });
  return device.group ?? "";
}

function isBridge({ classCode }: HostDevice): boolean {
  return classCode >>> 16 === CLASS_BRIDGE;
}

function linkName(path: string): string | undefined {
  return existsSync(path) ? basename(readlinkSync(path)) : undefined;
}
