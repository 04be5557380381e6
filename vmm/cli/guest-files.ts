// Where the package keeps its guest: beside dist/ or build/, made by `make guest`.
import { statSync } from "node:fs";
import { HostError } from "../errors.js";

/** dist/vmlet.js and build/vmm/cli/*.js see the package's top from different depths. */
function packageFile(path: string): string {
  const depth = import.meta.url.includes("/build/vmm/") ? "../../../" : "../";
  return decodeURIComponent(new URL(depth + path, import.meta.url).pathname);
}

function built(path: string, what: string): string {
  const absolute = packageFile(path);
  if (statSync(absolute, { throwIfNoEntry: false }) === undefined) {
    throw new HostError(`${what} is not built: ${absolute} does not exist`, { cure: "run: make guest" });
  }
  return absolute;
}

/** Top folder of the package. */
export function packageRoot(): string {
  return packageFile(".").replace(/\/$/, "");
}

export function defaultKernel(): string {
  return built("guest/out/default/vmlinux", "The guest kernel");
}

/** The kernel with the fewest instructions to boot, for a KVM that emulates them. */
export function fastKernel(): string {
  return built("guest/out/fast/vmlinux", "The fast guest kernel");
}

/** vmlet's init and nothing else: it changes into a root disk and runs a command there. */
export function tinyInitrd(): string {
  return built("guest/out/tiny.cpio", "The guest's init");
}

export function defaultInitrd(): string {
  return built("guest/out/initramfs.cpio", "The guest's initramfs");
}
