// Where the package keeps its guest: in guest/out, where `make guest` puts it, else in the cache, where
// the first use of an installed package builds it (first-use.ts).
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "./cache-folder.js";

/** Put in by bundle.mjs: a hash of all that the guest is built from. A checkout that is not bundled has none. */
declare const VMLET_GUEST_KEY: string | undefined;

/** Below the folder of a built guest. */
export type GuestFile = "default/vmlinux" | "fast/vmlinux" | "initramfs.cpio" | "tiny.cpio";

/** dist/vmlet.js and build/vmm/cli/*.js see the package's top from different depths. */
function packageFile(path: string): string {
  const depth = import.meta.url.includes("/build/vmm/") ? "../../../" : "../";
  return decodeURIComponent(new URL(depth + path, import.meta.url).pathname);
}

/** Top folder of the package. */
export function packageRoot(): string {
  return packageFile(".").replace(/\/$/, "");
}

/** The folder of the cache that has, or will have, the guest of exactly this package. */
export function guestCache(): string {
  const key = typeof VMLET_GUEST_KEY === "undefined" ? "checkout" : VMLET_GUEST_KEY;
  const cache = cacheFolder();
  return cache === undefined ? packageFile("guest/out") : join(cache, "guest", key);
}

/** Path of a file of the package's guest; it may have to be built first. */
export function guestFile(name: GuestFile): string {
  const own = packageFile(`guest/out/${name}`);
  return existsSync(own) ? own : join(guestCache(), name);
}

export function defaultKernel(): string {
  return guestFile("default/vmlinux");
}

/** The kernel with the fewest instructions to boot, for a KVM that emulates them. */
export function fastKernel(): string {
  return guestFile("fast/vmlinux");
}

/** vmlet's init and nothing else: it changes into a root disk and runs a command there. */
export function tinyInitrd(): string {
  return guestFile("tiny.cpio");
}

export function defaultInitrd(): string {
  return guestFile("initramfs.cpio");
}
