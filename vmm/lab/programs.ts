// The programs that the lab is made of, and the Debian packages that bring them.
import { existsSync } from "node:fs";
import { findProgram } from "../host/programs.js";
import type { LabCpu } from "./cpu.js";

export const BOCHS_BIOS = "/usr/share/bochs/BIOS-bochs-latest";
export const BOCHS_VGA_BIOS = "/usr/share/vgabios/vgabios.bin";
const BOCHS_SCREEN = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so";

export type LabPackages = readonly (readonly [program: string, debianPackage: string])[];

/** What the lab is made of: a program, or the path of a file, and the Debian package that brings it. */
export const LAB_PACKAGES: LabPackages = [
  ["qemu-system-x86_64", "qemu-system-x86"],
  ["gcc", "gcc"],
  ["cpio", "cpio"],
  ["busybox", "busybox-static"],
  ["mke2fs", "e2fsprogs"],
  ["dpkg-deb", "dpkg"],
];

/** The same for the Intel lab. */
export const INTEL_LAB_PACKAGES: LabPackages = [
  ["bochs-bin", "bochs"],
  [BOCHS_SCREEN, "bochs-term"],
  [BOCHS_BIOS, "bochsbios"],
  [BOCHS_VGA_BIOS, "vgabios"],
  ["objcopy", "binutils"],
  ["lz4", "lz4"],
  ["xz", "xz-utils"],
  ["setpriv", "util-linux"],
  ...LAB_PACKAGES.slice(1),
];

/** The Debian packages of those programs and files that are not there. */
export function missingPackagesOf(
  packages: LabPackages,
  has: { readonly program: (name: string) => boolean; readonly file: (path: string) => boolean },
): string[] {
  return packages
    .filter(([name]) => !(name.startsWith("/") ? has.file(name) : has.program(name)))
    .map(([, debianPackage]) => debianPackage);
}

/** Debian packages that are missing; empty if the lab can be built and started. */
export function missingLabPrograms(cpu: LabCpu = "amd"): string[] {
  return missingPackagesOf(cpu === "amd" ? LAB_PACKAGES : INTEL_LAB_PACKAGES, {
    program: (name) => findProgram(name) !== undefined,
    file: existsSync,
  });
}
