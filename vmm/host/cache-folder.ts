// Where vmlet keeps what is made once: guest kernels, the lab, what the probe has found.
// guest/cache-folder has the same rules for the build scripts.
import { accessSync, constants, lstatSync, mkdirSync } from "node:fs";
import { join } from "node:path";

const PRIVATE = 0o700;

/** Undefined where there is none: a user without a home whose private folder is somebody else's. */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const { VMLET_CACHE: own, XDG_CACHE_HOME: caches } = environment;
  if (own !== undefined && own !== "") return own;
  if (caches !== undefined && caches !== "") return join(caches, "vmlet");
  // Not by node:os, which would ask /etc/passwd: it is loaded for nothing else on the way to a VM.
  const home = environment["HOME"];
  if (home !== undefined && home !== "" && isWritable(home)) return join(home, ".cache/vmlet");
  return privateFolder(join("/var/tmp", `vmlet-${String(process.geteuid?.())}`));
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Anybody may make a folder in /var/tmp: one that is not ours could hand us somebody else's words. */
function privateFolder(path: string): string | undefined {
  try {
    mkdirSync(path, PRIVATE);
  } catch {
    // It is there, or cannot be: what counts is what is found there now.
  }
  const stat = lstatSync(path, { throwIfNoEntry: false });
  const isOurs = stat?.isDirectory() === true && stat.uid === process.geteuid?.() && (stat.mode & 0o777) === PRIVATE;
  return isOurs ? path : undefined;
}
