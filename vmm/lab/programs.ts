// The programs that the lab is made of, and the Debian packages that bring them.
import { statSync } from "node:fs";

const NEEDED: readonly (readonly [program: string, debianPackage: string])[] = [
  ["qemu-system-x86_64", "qemu-system-x86"],
  ["gcc", "gcc"],
  ["cpio", "cpio"],
  ["busybox", "busybox-static"],
  ["mke2fs", "e2fsprogs"],
  ["dpkg-deb", "dpkg"],
];

/** PATH, and where Debian keeps what only root has in its PATH. */
export function searchPath(): string[] {
  return [...(process.env["PATH"] ?? "").split(":"), "/sbin", "/usr/sbin"].filter((folder) => folder !== "");
}

function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  } catch (error) {
    // A folder of another user's PATH, inherited through sudo or su.
    if ((error as NodeJS.ErrnoException).code === "EACCES") return false;
    throw error;
  }
}

/** Absolute path of a program that this user can see, or undefined. */
export function findProgram(name: string): string | undefined {
  return searchPath()
    .map((folder) => `${folder}/${name}`)
    .find(isFile);
}

/** Debian packages that are missing; empty if the lab can be built and started. */
export function missingLabPrograms(): string[] {
  return NEEDED.filter(([program]) => findProgram(program) === undefined).map(([, debianPackage]) => debianPackage);
}
