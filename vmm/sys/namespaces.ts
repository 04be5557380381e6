// Namespaces of this process's main thread, and what is mounted in them: unshare(2), setns(2), mount(2), mount_setattr(2). What
// the thread starts from then on, programs and threads, is in them, too.
import { ENOSYS, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

const nativeUnshare = lazy("unshare", "int", ["int"]);
const nativeSetns = lazy("setns", "int", ["int", "int"]);
const nativeMount = lazy("mount", "int", ["str", "str", "str", "ulong", "str"]);
const nativeUmount = lazy("umount2", "int", ["str", "int"]);
const nativeSyscall = lazy("syscall", "int64_t", ["int64_t", "int64_t", "str", "int64_t", "void *", "size_t"]);

/** The current folder and the root, which a thread must have to itself before it enters a mount namespace. */
export const CLONE_FS = 0x200;
export const CLONE_NEWNS = 0x0002_0000;
export const CLONE_NEWNET = 0x4000_0000;

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_REMOUNT = 32;
export const MS_BIND = 4096;
export const MS_REC = 16_384;
export const MS_PRIVATE = 1 << 18;
export const MS_SLAVE = 1 << 19;
export const MS_SHARED = 1 << 20;
export const MNT_DETACH = 2;

/** Throws SystemCallError. */
export function unshare(flags: number): void {
  if (nativeUnshare(flags) < 0) throw systemCallError("unshare");
}

/** Enters the namespace that `fd` is open for; `kind` is its CLONE_NEW…. Throws SystemCallError. */
export function enterNamespace(fd: number, kind: number): void {
  if (nativeSetns(fd, kind) < 0) throw systemCallError("setns");
}

/** Throws SystemCallError. */
export function mount(source: string, target: string, type: string, flags: number, data = ""): void {
  if (uninterrupted(() => nativeMount(source, target, type, flags, data)) < 0) throw systemCallError("mount");
}

/** Throws SystemCallError. */
export function unmount(target: string, flags = 0): void {
  if (uninterrupted(() => nativeUmount(target, flags)) < 0) throw systemCallError("umount2");
}

const SYS_MOUNT_SETATTR = 442;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const MOUNT_ATTR_RDONLY = 1n;
/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd. */
const MOUNT_ATTR_BYTES = 32;

function setAttributes(
  fd: number,
  path: string,
  flags: number,
  { set = 0n, propagation = 0 }: { readonly set?: bigint; readonly propagation?: number },
): number {
  const attributes = new DataView(new ArrayBuffer(MOUNT_ATTR_BYTES));
  attributes.setBigUint64(0, set, true);
  attributes.setBigUint64(16, BigInt(propagation), true);
  // SAFETY: the size of struct mount_attr, read during the call only.
  return nativeSyscall(SYS_MOUNT_SETATTR, fd, path, flags, attributes, MOUNT_ATTR_BYTES);
}

/** Of a call that takes AT_RECURSIVE for what is mounted below. */
function depth(isRecursive: boolean): number {
  return isRecursive ? AT_RECURSIVE : 0;
}

/** What is mounted at the path cannot be written to by way of it; `isRecursive`: nor what is mounted below. Throws SystemCallError. */
export function makeReadonly(path: string, isRecursive: boolean): void {
  if (setAttributes(AT_FDCWD, path, depth(isRecursive), { set: MOUNT_ATTR_RDONLY }) >= 0) return;
  if (koffi.errno() !== ENOSYS) throw systemCallError("mount_setattr");
  // Before Linux 5.12: the mount alone.
  mount("none", path, "", MS_BIND | MS_REMOUNT | MS_RDONLY);
}

const nativeMoveMount = lazy("syscall", "int64_t", ["int64_t", "int64_t", "str", "int64_t", "str", "int64_t"]);
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2_000_000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;

/**
 * A copy of what is mounted at the path, with `isRecursive` and below it, which is mounted nowhere yet: a descriptor, for `attachMount` in whichever
 * namespace. Throws SystemCallError; ENOSYS before Linux 5.2.
 */
export function copyMount(path: string, isRecursive: boolean): number {
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth(isRecursive);
  const fd = nativeSyscall(SYS_OPEN_TREE, AT_FDCWD, path, flags, null, 0);
  if (fd < 0) throw systemCallError("open_tree");
  return fd;
}

/** As `makeReadonly`, of what `copyMount` has given. Throws SystemCallError; ENOSYS before Linux 5.12. */
export function makeCopyReadonly(fd: number, isRecursive: boolean): void {
  if (setAttributes(fd, "", AT_EMPTY_PATH | depth(isRecursive), { set: MOUNT_ATTR_RDONLY }) < 0) {
    throw systemCallError("mount_setattr");
  }
}

/** What is mounted elsewhere later is not seen in what `copyMount` has given. Throws SystemCallError; ENOSYS before Linux 5.12. */
export function makeCopyPrivate(fd: number): void {
  if (setAttributes(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, { propagation: MS_PRIVATE }) < 0) {
    throw systemCallError("mount_setattr");
  }
}

/** Mounts what `copyMount` has given. Throws SystemCallError. */
export function attachMount(fd: number, target: string): void {
  if (nativeMoveMount(SYS_MOVE_MOUNT, fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
    throw systemCallError("move_mount");
  }
}
