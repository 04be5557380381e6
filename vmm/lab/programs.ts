// The programs that the lab is made of, and the Debian packages that bring them.
import { statSync } from "node:fs";

/** What the lab is made of: a program, and the Debian package that brings it. */
export const LAB_PACKAGES: readonly (readonly [program: string, debianPackage: string])[] = [
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

/** Absolute path of a program, or undefined. */
export function findProgram(name: string): string | undefined {
  return searchPath()
    .map((folder) => `${folder}/${name}`)
    .find(isFile);
}

/** A folder of another user's in the PATH (sudo keeps it) may not even be looked into. */
function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Debian packages that are missing; empty if the lab can be built and started. */
export function missingLabPrograms(): string[] {
  return LAB_PACKAGES.filter(([program]) => findProgram(program) === undefined).map(
    ([, debianPackage]) => debianPackage,
  );
}
