// Which files of the package go into the lab, and where they lie there.
import { existsSync } from "node:fs";
import { join } from "node:path";
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
