// The part of a pod's shared folder that is one container's: a folder of its own with the root and the binds. The folder lies in
// the mount namespace of the sandbox's monitor; what is mounted there later reaches the file server, as the folder propagates.
import { closeSync, mkdirSync, openSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { HostError } from "../errors.js";
import {
  attachMount,
  CLONE_FS,
  CLONE_NEWNS,
  copyMount,
  enterNamespace,
  makeCopyPrivate,
  makeCopyReadonly,
  MNT_DETACH,
  mount,
  MS_REC,
  MS_SLAVE,
  unmount,
  unshare,
} from "../sys/namespaces.js";
import type { SharedPath } from "./guest-setup.js";

/**
 * Mounts it all in `folder` of that process's mount namespace, in which this thread is from then on. Throws HostError; what has
 * been mounted by then is for `leaveShare`.
 */
export function joinShare(pid: number, folder: string, shared: readonly SharedPath[]): void {
  const copies: { readonly path: SharedPath; readonly fd: number }[] = [];
  try {
    // Copies of a slave are slaves: what is unmounted from them later stays mounted here.
    unshare(CLONE_FS | CLONE_NEWNS);
    mount("none", "/", "", MS_REC | MS_SLAVE);
    for (const path of shared) {
      copies.push({ path, fd: forPath(path.source, () => copyMount(path.source, path.isAlone !== true)) });
    }
    const namespace = openSync(`/proc/${String(pid)}/ns/mnt`, "r");
    try {
      enterNamespace(namespace, CLONE_NEWNS);
    } finally {
      closeSync(namespace);
    }
    mkdirSync(folder);
    for (const { path, fd } of copies) forPath(path.source, () => place(join(folder, path.name), path, fd));
  } catch (error) {
    if (error instanceof HostError) throw error;
    throw new HostError(`The folder of the pod's files, ${folder}: ${(error as Error).message}`, { cause: error });
  } finally {
    for (const { fd } of copies) closeSync(fd);
  }
}

function place(target: string, { isFile, isReadonly, isReadonlyBelow, follows }: SharedPath, fd: number): void {
  if (isFile) closeSync(openSync(target, "w"));
  else mkdirSync(target);
  // Before it is anywhere: what becomes of a mount later is nothing to its copies in other namespaces.
  if (follows !== true) makeCopyPrivate(fd);
  if (isReadonly) makeCopyReadonly(fd, isReadonlyBelow === true);
  attachMount(fd, target);
}

function forPath<Result>(path: string, task: () => Result): Result {
  try {
    return task();
  } catch (error) {
    throw new HostError(`${path} cannot be given to the VM: ${(error as Error).message}`, { cause: error });
  }
}

/** In the mount namespace of that process; this thread is in its own afterwards, at its root. Throws HostError, SystemCallError, what `task` throws. */
export function inMountsOf<Result>(pid: number, task: () => Result): Result {
  const open = (path: string): number => forPath(path, () => openSync(path, "r"));
  const own = open("/proc/thread-self/ns/mnt");
  try {
    const other = open(`/proc/${String(pid)}/ns/mnt`);
    try {
      unshare(CLONE_FS);
      enterNamespace(other, CLONE_NEWNS);
    } finally {
      closeSync(other);
    }
    try {
      return task();
    } finally {
      enterNamespace(own, CLONE_NEWNS);
    }
  } finally {
    closeSync(own);
  }
}

/** Unmounts what is there. The names of what is left, without content, for whoever removes it. */
export function leaveShare(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  for (const name of names) {
    try {
      unmount(join(folder, name), MNT_DETACH);
    } catch {
      // It had not come so far.
    }
  }
  return names;
}

/** What `leaveShare` has left, where nobody else has removed it. */
export function removeShare(folder: string, names: readonly string[]): void {
  for (const name of names) attempt(() => removeEmpty(join(folder, name)));
  attempt(() => {
    rmdirSync(folder);
  });
}

/** A folder that still has something mounted at it, or content, stays. */
function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTDIR") unlinkSync(path);
  }
}

function attempt(task: () => void): void {
  try {
    task();
  } catch {
    // It is gone, or the VM is about to be.
  }
}
