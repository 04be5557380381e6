// The folder that a container's VM is given: its root and all that is bound into it, put together in a mount namespace of the
// monitor's own. One file server serves it all, and nothing of it is left when the last process of the namespace has ended.
import { closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { HostError } from "../errors.js";
import {
  CLONE_NEWNS,
  makeReadonly,
  mount,
  MS_BIND,
  MS_NODEV,
  MS_NOSUID,
  MS_PRIVATE,
  MS_REC,
  MS_SHARED,
  MS_SLAVE,
  unshare,
} from "../sys/namespaces.js";
import type { SharedPath } from "./guest-setup.js";

/** Of folders that mounts cover, and empty files. */
const OPTIONS = "mode=0755,size=1m";

/**
 * From here on this thread is in a mount namespace of its own. `isOpen`: what is mounted in the folder later is shared, too.
 * Throws HostError.
 */
export function makeShare(folder: string, shared: readonly SharedPath[], isOpen: boolean): void {
  try {
    mkdirSync(folder);
    unshare(CLONE_NEWNS);
    // What the engine unmounts goes here, too; what is mounted here is nobody else's.
    mount("none", "/", "", MS_REC | MS_SLAVE);
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, OPTIONS);
    if (isOpen) mount("none", folder, "", MS_SHARED);
  } catch (error) {
    throw new HostError(`The folder of the VM's files, ${folder}: ${(error as Error).message}`, { cause: error });
  }
  for (const path of shared) bind(folder, path);
}

function bind(
  folder: string,
  { source, name, isFile, isAlone, isReadonly, isReadonlyBelow, follows }: SharedPath,
): void {
  const target = join(folder, name);
  try {
    if (isFile) closeSync(openSync(target, "w"));
    else mkdirSync(target);
    mount(source, target, "", isAlone === true ? MS_BIND : MS_BIND | MS_REC);
    // An engine that copies files mounts the volumes in the root for a moment: a guest would lose its own at these places.
    if (follows !== true) mount("none", target, "", MS_REC | MS_PRIVATE);
    if (isReadonly) makeReadonly(target, isReadonlyBelow === true);
  } catch (error) {
    throw new HostError(`${source} cannot be given to the VM: ${(error as Error).message}`, { cause: error });
  }
}
