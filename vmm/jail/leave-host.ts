// What of the host a process leaves that has opened everything: its file systems and its network. The launcher has made namespaces for this
// process alone (launcher/around.h), in which it has the rights for it. All threads share their root and current folder, and follow; a
// network namespace is a thread's own.
import { openSync } from "node:fs";
import { systemCallError } from "../sys/errno.js";
import { rawCall } from "../sys/raw-call.js";
import type { Attendant } from "./attendant.js";
import type { Scratch } from "./scratch.js";

const SYS_CHDIR = 80;
const SYS_PIVOT_ROOT = 155;
const SYS_MOUNT = 165;
const SYS_UMOUNT2 = 166;
const SYS_UNSHARE = 272;
export const SYS_SETNS = 308;
// linux/mount.h: MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC.
const EMPTY_FLAGS = 0xf;
const MNT_DETACH = 2;
export const CLONE_NEWNET = 0x4000_0000;

function call(name: string, number: number, ...words: number[]): void {
  const result = rawCall(number, ...words);
  if (result < 0) throw systemCallError(name, -result);
}

/** Whether the namespaces are this process's: one that has only inherited the variable would take the host's root away. */
export function hasOwnNamespaces(
  environment: Readonly<Record<string, string | undefined>> = process.env,
  pid = process.pid,
): boolean {
  return environment["VMLET_OWN_NAMESPACES"] === String(pid);
}

/**
 * A network namespace without interfaces, as a descriptor for setns(2) of each thread; what is open stays so. The attendant may have made one
 * meanwhile. Throws SystemCallError.
 */
export function emptyNetwork(attendant: Attendant | undefined): number {
  const made = attendant?.network();
  if (made !== undefined) return made;
  call("unshare", SYS_UNSHARE, CLONE_NEWNET);
  return openSync("/proc/thread-self/ns/net", "r");
}

/** Nothing is mounted any more but an empty root, which can only be read. Throws SystemCallError. */
export function leaveRoot(scratch: Scratch): void {
  const tmpfs = scratch.text("tmpfs");
  const root = scratch.text("/");
  const above = scratch.text("/..");
  const here = scratch.text(".");
  // SAFETY: texts in the scratch, read during the calls only.
  call("mount", SYS_MOUNT, tmpfs, root, tmpfs, EMPTY_FLAGS, 0);
  // The root of a process stays below what is mounted on it, and only this leads there: path_resolution(7).
  call("chdir", SYS_CHDIR, above);
  call("pivot_root", SYS_PIVOT_ROOT, here, here);
  // Both are at the same place, the host's on top.
  call("umount2", SYS_UMOUNT2, here, MNT_DETACH);
  call("chdir", SYS_CHDIR, root);
}
