// Which files of the package go into the lab, and where they lie there.
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { guestFile } from "../host/guest-files.js";
import type { LabInput } from "./image.js";

/** The package in the lab, as `vmlet boot` needs it there. */
export const LAB_PACKAGE = "/input/vmlet";
export const LAB_CLI = `${LAB_PACKAGE}/dist/vmlet.js`;

/** What runs: the bundle, and koffi's native module, which npm puts next to an installed package. */
export function packageInputs(root: string): LabInput[] {
  const native = ["node_modules/@koromix", "../@koromix"].find((path) => existsSync(join(root, path)));
  const own = ["package.json", "dist"].map((path) => ({ from: join(root, path), to: `vmlet/${path}` }));
  return native === undefined ? own : [...own, { from: join(root, native), to: "vmlet/node_modules/@koromix" }];
}

/** The built guest and the benches' programs as well, for a person who looks around. */
export function checkoutInputs(root: string): LabInput[] {
  const more = ["guest/out", "bench/out", "README.md"]
    .filter((path) => existsSync(join(root, path)))
    .map((path) => ({ from: join(root, path), to: `vmlet/${path}` }));
  return [...packageInputs(root), ...more];
}

/** Where the package lies in a saved state: in its RAM, because the disks of a run are not there yet. */
export const WAITING_PACKAGE = "/run/vmlet";
export const WAITING_CLI = `${WAITING_PACKAGE}/dist/vmlet.js`;
/** Of dist/, what boots a guest. */
const BOOTS = ["package.json", "vmlet.js", "cli.js", "cli.cache", "vcpu-worker.js"];

/** One file each: what the vmlet that waits in a saved state is made of. */
export function waitingInputs(root: string): LabInput[] {
  const isBuilt = (path: string): boolean => existsSync(join(root, path));
  const own = ["package.json", ...BOOTS.map((name) => `dist/${name}`)].filter(isBuilt);
  const native = ["node_modules/@koromix", "../@koromix"].find(isBuilt);
  return [
    ...own.map((path) => ({ from: join(root, path), to: join(WAITING_PACKAGE, path) })),
    ...(native === undefined ? [] : filesBelow(join(root, native), join(WAITING_PACKAGE, "node_modules/@koromix"))),
  ];
}

/** The guest that it boots to become warm; none before the first use has built it. */
export function rehearsalInputs(): LabInput[] {
  const files = (["default/vmlinux", "initramfs.cpio"] as const).map((name) => ({
    from: guestFile(name),
    to: join(WAITING_PACKAGE, "guest/out", name),
  }));
  return files.every(({ from }) => existsSync(from)) ? files : [];
}

function filesBelow(from: string, to: string): LabInput[] {
  if (!statSync(from).isDirectory()) return [{ from, to }];
  return readdirSync(from)
    .sort()
    .flatMap((name) => filesBelow(join(from, name), join(to, name)));
}
