// PCI devices of this host as /sys shows them: which IOMMU group each is in, who else is in it, what drives them. A group is
// handed over whole, because its members can reach each other behind the IOMMU's back.
import { readdirSync, readFileSync } from "node:fs";
import { HostError } from "../../errors.js";

const DEVICES = "/sys/bus/pci/devices";
const GROUPS = "/sys/kernel/iommu_groups";
/** By which the host's kernel hands over groups of devices. */
export const CONTAINER = "/dev/vfio/vfio";
/** Where it has address spaces for devices, since Linux 6.2. */
export const IOMMUFD = "/dev/iommu";
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

/** Files below /sys; what cannot be read is undefined or empty. */
export interface SysFiles {
  read(path: string): string | undefined;
  list(path: string): readonly string[];
}

const SYS: SysFiles = {
  read: (path) => orElse(() => readFileSync(path, "latin1").trim(), undefined),
  list: (path) => orElse(() => readdirSync(path), []),
};

/** Undefined if there is none. */
export function hostDevice(address: string, files: SysFiles = SYS): HostDevice | undefined {
  const classCode = files.read(`${DEVICES}/${address}/class`);
  if (classCode === undefined) return undefined;
  const group = files.list(GROUPS).find((number) => files.list(`${GROUPS}/${number}/devices`).includes(address));
  const members = group === undefined ? [] : files.list(`${GROUPS}/${group}/devices`);
  return {
    address,
    classCode: Number(classCode),
    driver: /^DRIVER=(.+)$/m.exec(files.read(`${DEVICES}/${address}/uevent`) ?? "")?.[1],
    group,
    companions: members.filter((member) => member !== address).sort(),
  };
}

/** The device's own node, by which iommufd takes it; undefined where the host's kernel makes none (before Linux 6.6), or no driver has. */
export function deviceNode(address: string, files: SysFiles = SYS): string | undefined {
  const [name] = files.list(`${DEVICES}/${address}/vfio-dev`);
  return name === undefined ? undefined : `/dev/vfio/devices/${name}`;
}

/** All that are no bridges. */
export function hostDevices(files: SysFiles = SYS): HostDevice[] {
  return [...files.list(DEVICES)]
    .sort()
    .flatMap((address) => hostDevice(address, files) ?? [])
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
export function obstacle(device: HostDevice, files = SYS): Obstacle | undefined {
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
    .flatMap((companion) => hostDevice(companion, files) ?? [])
    .find((companion) => companion.driver !== undefined && !HARMLESS.includes(companion.driver));
  if (taken === undefined) return undefined;
  return {
    problem: `${address} is in IOMMU group ${group} with ${taken.address}, which the driver ${taken.driver ?? ""} has`,
    cure: bindCommand(taken),
  };
}

/** The group's number. Throws HostError for a device that is not there, or cannot be given to a guest now. */
export function assignableGroup(address: string, files = SYS): string {
  const device = hostDevice(address, files);
  if (device === undefined) {
    throw new HostError(`Assigned device ${address}: this host has no such PCI device`, {
      cure: "vmlet doctor --passthrough lists those that it has",
    });
  }
  const found = obstacle(device, files);
  if (found !== undefined) throw new HostError(`Assigned device ${address}: ${found.problem}`, { cure: found.cure });
  return device.group ?? "";
}

function isBridge({ classCode }: HostDevice): boolean {
  return classCode >>> 16 === CLASS_BRIDGE;
}

function orElse<Value>(action: () => Value, otherwise: Value): Value {
  try {
    return action();
  } catch {
    return otherwise;
  }
}
