// A package and a checkout bring their guest as sources: the first use builds the kernel that it needs and the
// initramfs, which takes minutes once. The build scripts tell how far they are.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { HostError } from "../errors.js";
import { ignoringAlike } from "./inherited-signals.js";
import { findProgram } from "./programs.js";
import { guestFolder, packageRoot, type GuestFile } from "./guest-files.js";

/** Targets of guest/Makefile. */
type Target = "kernel" | "fast-kernel" | "init";

const TARGETS: Readonly<Record<GuestFile, Target>> = {
  "default/vmlinux": "kernel",
  "fast/vmlinux": "fast-kernel",
  "initramfs.cpio": "init",
  "tiny.cpio": "init",
};
const SCRIPTS: Readonly<Record<Target, string>> = {
  kernel: "kernel/build",
  "fast-kernel": "kernel/build",
  init: "init/build",
};
export const ALL_TARGETS: readonly Target[] = ["kernel", "fast-kernel", "init"];

/** Debian packages without which the targets cannot be built. */
export function missingPackages(targets: readonly Target[]): string[] {
  if (findProgram("bash") === undefined) return ["bash"];
  const scripts = new Set(targets.map((target) => join(packageRoot(), "guest", SCRIPTS[target])));
  const names = [...scripts].flatMap((script) =>
    spawnSync("bash", [script, "--missing"], { encoding: "utf8" }).stdout.split("\n").filter(Boolean),
  );
  return [...new Set(findProgram("make") === undefined ? ["make", ...names] : names)];
}

/** Builds those of these files that belong to the package and do not exist. Throws HostError with the packages that are missing; `signal` ends the work. */
export async function buildMissing(paths: readonly (string | undefined)[], signal?: AbortSignal): Promise<void> {
  const folder = guestFolder();
  const missing = (Object.keys(TARGETS) as GuestFile[]).filter((name) => {
    const path = join(folder, name);
    return paths.includes(path) && !existsSync(path);
  });
  if (missing.length === 0) return;
  const targets = [...new Set(missing.map((name) => TARGETS[name]))];
  const packages = missingPackages(targets);
  if (packages.length > 0) {
    throw new HostError(
      `The guest (${targets.join(", ")}) is not built yet, and building it needs Debian packages that are missing: ${packages.join(" ")}`,
      {
        cure: `sudo apt-get install --no-install-recommends ${packages.join(" ")}; or bring a guest: --kernel, --initrd`,
      },
    );
  }
  mkdirSync(folder, { recursive: true });
  const [file = "make", ...argv] = ignoringAlike([
    ...["make", "--no-print-directory", "-C", join(packageRoot(), "guest"), `OUT=${folder}`],
    ...targets,
  ]);
  const child = spawn(file, argv, {
    stdio: ["ignore", "ignore", "inherit"],
    ...(signal === undefined ? {} : { signal }),
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (status !== 0) throw new HostError("The guest could not be built; the lines above say why");
}
