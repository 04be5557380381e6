// The programs that the lab is made of, and the Debian packages that bring them.
import { existsSync, statSync } from "node:fs";
import type { LabCpu } from "./emulator.js";

export const BOCHS_BIOS = "/usr/share/bochs/BIOS-bochs-latest";
export const BOCHS_VGA_BIOS = "/usr/share/vgabios/vgabios.bin";
const BOCHS_SCREEN = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so";

type Needed = readonly (readonly [program: string, debianPackage: string])[];

const NEEDED: Needed = [
  ["gcc", "gcc"],
  ["cpio", "cpio"],
  ["busybox", "busybox-static"],
  ["mke2fs", "e2fsprogs"],
  ["dpkg-deb", "dpkg"],
];
const NEEDED_BY_CPU: Readonly<Record<LabCpu, Needed>> = {
  amd: [["qemu-system-x86_64", "qemu-system-x86"]],
  intel: [
    ["bochs-bin", "bochs"],
    ["objcopy", "binutils"],
    ["lz4", "lz4"],
    ["xz", "xz-utils"],
    ["setpriv", "util-linux"],
  ],
};
/** Files that programs bring along, and the packages that hold them. */
const FILES_BY_CPU: Readonly<Record<LabCpu, Needed>> = {
  amd: [],
  intel: [
    [BOCHS_SCREEN, "bochs-term"],
    [BOCHS_BIOS, "bochsbios"],
    [BOCHS_VGA_BIOS, "vgabios"],
  ],
};

/** PATH, and where Debian keeps what only root has in its PATH. */
export function searchPath(): string[] {
  return [...(process.env["PATH"] ?? "").split(":"), "/sbin", "/usr/sbin"].filter((folder) => folder !== "");
}

/** Absolute path of a program, or undefined. */
export function findProgram(name: string): string | undefined {
  return searchPath()
    .map((folder) => `${folder}/${name}`)
    .find((path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true);
}

/** Debian packages that are missing; empty if the lab can be built and started. */
export function missingLabPrograms(cpu: LabCpu = "amd"): string[] {
  const programs = [...NEEDED_BY_CPU[cpu], ...NEEDED].filter(([program]) => findProgram(program) === undefined);
  const files = FILES_BY_CPU[cpu].filter(([path]) => !existsSync(path));
  return [...programs, ...files].map(([, debianPackage]) => debianPackage);
}
