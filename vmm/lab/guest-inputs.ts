// A guest's configuration as it is in the lab: its kernel and initramfs lie on the input disk, its disks are the lab's.
import type { DiskFormat } from "../config/disks.js";
import type { ResolvedConfig } from "../config/types.js";
import { packageRoot } from "../host/guest-files.js";
import { labDiskPath } from "./disks.js";
import type { LabOptions } from "./emulator.js";
import type { LabInput } from "./image.js";
import { labFor } from "./machine-size.js";

export const LAB_KERNEL = "/input/boot/kernel";
export const LAB_INITRD = "/input/boot/initrd";

/** The files that such a guest boots from. */
function guestInputs({ kernel, initrd }: Pick<ResolvedConfig, "kernel" | "initrd">): LabInput[] {
  return [{ from: kernel, to: "boot/kernel" }, ...(initrd === undefined ? [] : [{ from: initrd, to: "boot/initrd" }])];
}

/** The lab of such a guest, with its disks and a vmlet that starts it. */
export function labOfGuest(config: ResolvedConfig): LabOptions {
  return {
    packageRoot: packageRoot(),
    ...labFor(config),
    inputs: guestInputs(config),
    needsVmlet: true,
    disks: config.disks,
  };
}

export function configInLab<Config extends Pick<ResolvedConfig, "kernel" | "initrd" | "disks">>(
  config: Config,
): Config {
  return {
    ...config,
    kernel: LAB_KERNEL,
    initrd: config.initrd === undefined ? undefined : LAB_INITRD,
    disks: config.disks.map((disk, index) => ({
      ...disk,
      path: labDiskPath(index),
      format: formatInLab(disk.format),
    })),
  };
}

/** In there, a disk of parts is one device. */
export function formatInLab(format: DiskFormat): DiskFormat {
  return format === "parts" ? "raw" : format;
}
