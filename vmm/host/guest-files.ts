// Where the package keeps its guest: in a checkout guest/out, beside dist/ and build/, else the cache. What
// is not there, the first use builds (first-use.ts).
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "./cache-folder.js";

/** Put in by bundle.mjs: a hash of all that the guest is built from. A checkout that is not bundled has none. */
declare const VMLET_GUEST_KEY: string | undefined;

/** Below the folder of a built guest. */
export type GuestFile = "default/vmlinux" | "fast/vmlinux" | "initramfs.cpio" | "tiny.cpio";

/** Top folder of the package: dist/cli.js and build/vmm/host/guest-files.js see it from different depths. */
export function packageRoot(): string {
  const { dirname: folder } = import.meta;
  return join(folder, folder.endsWith("/build/vmm/host") ? "../../.." : "..");
}

function packageFile(path: string): string {
  return join(packageRoot(), path);
}

/** The folder that has, or will have, the guest of exactly this package. */
export function guestFolder(): string {
  const own = packageFile("guest/out");
  if (isOwnCheckout()) return own;
  const key = typeof VMLET_GUEST_KEY === "undefined" ? "checkout" : VMLET_GUEST_KEY;
  const cache = cacheFolder();
  return cache === undefined ? own : join(cache, "guest", key);
}

/** A package has no Makefile; somebody else's checkout is not written to. */
function isOwnCheckout(): boolean {
  try {
    accessSync(packageFile("Makefile"));
    accessSync(packageFile("guest"), constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Path of a file of the package's guest; it may have to be built first. */
export function guestFile(name: GuestFile): string {
  const own = packageFile(`guest/out/${name}`);
  return existsSync(own) ? own : join(guestFolder(), name);
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
