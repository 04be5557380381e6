// What it takes to hand a device of the host to a guest (doctor --passthrough): vmlet boot --vfio, or another monitor.
import {
  bindCommand,
  CONTAINER,
  hostDevices,
  IOMMUFD,
  obstacle,
  VFIO_PCI,
  type HostDevice,
} from "../../pci/vfio/host-devices.js";
import { here, type Check } from "../checks.js";
import type { HostView } from "../host-view.js";
import { softLimit } from "./memory.js";

const GROUPS = "/sys/kernel/iommu_groups";
const MIB = 2 ** 20;

export const iommu: Check = {
  code: "iommu",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const title = "IOMMU";
    const groups = files.list(GROUPS).length;
    const units = files.list("/sys/class/iommu").join(", ");
    if (groups > 0)
      return { status: "ok", title, detail: `${String(groups)} groups${units === "" ? "" : ` (${units})`}` };
    const isIntel = /^vendor_id\s*:\s*GenuineIntel/m.test(files.read("/proc/cpuinfo") ?? "");
    const word = isIntel ? "intel_iommu=on" : "amd_iommu=on";
    return {
      status: "note",
      title,
      detail: "no groups: the IOMMU is off or not there",
      cure: `turn on ${isIntel ? "VT-d" : "AMD-Vi (IOMMU)"} in the firmware, and ${word} on the kernel's command line`,
      commands: [
        here(`sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&${word} iommu=pt /' /etc/default/grub && sudo update-grub`),
      ],
    };
  },
};

export const vfio: Check = {
  code: "vfio",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const title = "VFIO";
    const ways: string[] = [];
    if (files.facts(CONTAINER) !== undefined) {
      const bound = files.list("/dev/vfio").filter((name) => /^\d+$/.test(name)).length;
      ways.push(`${String(bound)} groups of devices are bound to it`);
    }
    if (files.facts(IOMMUFD) !== undefined) {
      ways.push(`${String(files.list("/dev/vfio/devices").length)} devices by iommufd`);
    }
    if (ways.length > 0) return { status: "ok", title, detail: ways.join(", ") };
    return {
      status: "note",
      title,
      detail: `there is no ${CONTAINER}, and no ${IOMMUFD}`,
      cure: "load vfio-pci and bind the device to it",
      commands: [here("sudo modprobe vfio-pci"), here("sudo driverctl set-override <DEVICE> vfio-pci")],
    };
  },
};

export const vfioMemlock: Check = {
  code: "vfio-memlock",
  area: "extra",
  worst: "note",
  look: ({ files }: HostView) => {
    const limit = softLimit(files, "Max locked memory");
    const title = "Locked memory";
    if (limit === undefined) return { status: "ok", title, detail: "without a limit" };
    return {
      status: "note",
      title,
      detail: `RLIMIT_MEMLOCK is ${String(Math.floor(limit / MIB))} MiB: VFIO locks all of a guest's RAM`,
      cure: "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
      commands: [here("ulimit -l unlimited")],
    };
  },
};

/** Each device: whether a guest can have it, and with whom it shares its group. */
export const vfioDevices: Check = {
  code: "vfio-devices",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const title = "PCI devices";
    const devices = hostDevices(files);
    if (devices.length === 0) return { status: "note", title, detail: "there are none that a guest could have" };
    const free = devices.filter((device) => obstacle(device, files) === undefined);
    const detail = devices.map((device) => `${device.address}: ${stateOf(device, free.includes(device))}`).join("; ");
    if (free.length > 0) return { status: "ok", title, detail };
    const bound = devices.filter(({ group, driver }) => group !== undefined && driver !== VFIO_PCI);
    return {
      status: "note",
      title,
      detail,
      ...(bound.length > 0 && {
        cure: `give ${VFIO_PCI} one of them, and all of its group, as root: --fix has the command of each`,
        // As comments: who runs them all takes this host's own disk and network away.
        commands: bound.map((device) => here(`# ${device.address}: sudo sh -c '${bindCommand(device)}'`)),
      }),
    };
  },
};

function stateOf({ group, driver, companions }: HostDevice, isFree: boolean): string {
  if (group === undefined) return "in no IOMMU group";
  const others = companions.length === 0 ? "alone" : `with ${companions.join(", ")}`;
  const state = isFree
    ? "can be given to a guest"
    : driver === undefined
      ? "without a driver"
      : `has the driver ${driver}`;
  return `${state}, in group ${group} ${others}`;
}
