// Every check, in the order of the report: the machine, KVM and what stands in its way, memory,
// the rest.
import type { Check, Finding } from "./checks.js";
import {
  deviceGroup,
  deviceLogin,
  deviceMissing,
  deviceMode,
  deviceNoDriver,
  deviceNotInContainer,
  deviceWrong,
  kvmDevice,
} from "./checks/device.js";
import { deviceCgroup, deviceNodev, lsmApparmor, lsmOther, lsmSelinux, seccomp } from "./checks/forbidden.js";
import { kvmCapabilities, kvmOpen, kvmQuirks, kvmSpeed } from "./checks/kvm-api.js";
import { kvmBusy, kvmModule, kvmNotBuilt, kvmNotLoaded } from "./checks/kvm-module.js";
import { jail } from "./checks/jail.js";
import { hugePages, memoryCgroup, memoryFree, memoryRlimit } from "./checks/memory.js";
import { hostGvisor, hostUserModeLinux, hostWsl1 } from "./checks/odd-hosts.js";
import { nestedOff } from "./checks/nested.js";
import { iommu, vfio, vfioDevices, vfioMemlock } from "./checks/passthrough.js";
import { cpu, firmwareOff } from "./checks/processor.js";
import { shares } from "./checks/shares.js";
import { cgroups, containers, guest, intelLab, lab, tap } from "./checks/surroundings.js";
import { vhost } from "./checks/vhost.js";
import type { HostView } from "./host-view.js";

export const CHECKS: readonly Check[] = [
  ...[hostGvisor, hostWsl1, hostUserModeLinux],
  ...[cpu, firmwareOff, nestedOff],
  ...[kvmModule, kvmNotLoaded, kvmNotBuilt],
  ...[kvmDevice, deviceNotInContainer, deviceMissing, deviceWrong, deviceNoDriver],
  ...[deviceGroup, deviceLogin, deviceMode, deviceNodev, deviceCgroup, lsmApparmor, lsmSelinux, lsmOther],
  ...[kvmOpen, seccomp, kvmBusy, kvmCapabilities, kvmSpeed, kvmQuirks],
  ...[memoryFree, memoryCgroup, memoryRlimit, hugePages],
  ...[tap, vhost, shares, jail, cgroups, containers, guest, lab, intelLab],
];

/** Only with --passthrough. */
export const PASSTHROUGH_CHECKS: readonly Check[] = [iommu, vfio, vfioMemlock, vfioDevices];

export function lookAt(host: HostView, checks: readonly Check[]): Finding[] {
  return checks.flatMap(({ code, look }) => {
    const seen = look(host);
    return seen === undefined ? [] : [{ code, ...seen }];
  });
}
