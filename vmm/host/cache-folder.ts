// Where vmlet keeps what is made once: guest kernels, the lab, what the probe has found. guest/cache-folder has the
// same rules for the build scripts. What lies there is run: by whoever owns it, or may write to it, it could be swapped.
import { accessSync, constants, lstatSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";

const PRIVATE = 0o700;
const WRITABLE_BY_ALL = 0o002;
const ROOT = 0;

/**
 * Undefined where there is none: VMLET_CACHE is somebody else's folder, or so is the private one of a user without a
 * home. A home that is somebody else's, as by `sudo -E`, is none.
 */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const { VMLET_CACHE: own, XDG_CACHE_HOME: caches } = environment;
  if (own !== undefined && own !== "") return isTrusted(own) ? own : undefined;
  // Not by node:os, which would ask /etc/passwd: it is loaded for nothing else on the way to a VM.
  const home = environment["HOME"];
  const parent =
    caches !== undefined && caches !== ""
      ? caches
      : home !== undefined && home !== "" && isOwnHome(home)
        ? join(home, ".cache")
        : undefined;
  if (parent !== undefined && isTrusted(parent) && isTrusted(join(parent, "vmlet"))) return join(parent, "vmlet");
  return privateFolder(join("/var/tmp", `vmlet-${String(process.geteuid?.())}`));
}

/** Ours or root's, and not everybody may write to it. One that does not exist is nobody's yet. */
function isTrusted(folder: string): boolean {
  try {
    const stat = statSync(folder, { throwIfNoEntry: false });
    if (stat === undefined) return lstatSync(folder, { throwIfNoEntry: false }) === undefined;
    const isOurs = stat.uid === process.geteuid?.() || stat.uid === ROOT;
    return stat.isDirectory() && isOurs && (stat.mode & WRITABLE_BY_ALL) === 0;
  } catch {
    // What cannot be looked at cannot be used either.
    return false;
  }
}

function isOwnHome(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return statSync(folder).uid === process.geteuid?.();
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
