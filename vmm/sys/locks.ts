// Locks on bytes of a file that belong to its opening: fcntl(2), F_OFD_SETLK.
import { EAGAIN, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

const nativeFcntl = lazy("fcntl", "int", ["int", "int", "void *"]);
const EACCES = 13;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock of one byte, from the file's start (SEEK_SET); l_pid must be 0 for these locks. */
function flockOf(type: number, byte: number): DataView {
  const flock = new DataView(new ArrayBuffer(32));
  flock.setInt16(0, type, true);
  flock.setBigInt64(8, BigInt(byte), true);
  flock.setBigInt64(16, 1n, true);
  return flock;
}

/** A shared lock on one byte of an open file, for as long as this opening of it lives. */
export function lockByteShared(fd: number, byte: number): void {
  // SAFETY: the size of struct flock, used during this call only; so below.
  const flock = flockOf(F_RDLCK, byte);
  if (uninterrupted(() => nativeFcntl(fd, F_OFD_SETLK, flock)) < 0) throw systemCallError("F_OFD_SETLK");
}

/** Gives up what this opening has locked of the byte. */
export function unlockByte(fd: number, byte: number): void {
  const flock = flockOf(F_UNLCK, byte);
  if (uninterrupted(() => nativeFcntl(fd, F_OFD_SETLK, flock)) < 0) throw systemCallError("F_OFD_SETLK");
}

/** Locks one byte for this opening alone; false if another has it. True where the file system has no locks. */
export function lockByteExclusive(fd: number, byte: number): boolean {
  const flock = flockOf(F_WRLCK, byte);
  return uninterrupted(() => nativeFcntl(fd, F_OFD_SETLK, flock)) >= 0 || ![EAGAIN, EACCES].includes(koffi.errno());
}

/** Whether another opening of the file has any lock on this byte. */
export function isByteLocked(fd: number, byte: number): boolean {
  const flock = flockOf(F_WRLCK, byte);
  if (uninterrupted(() => nativeFcntl(fd, F_OFD_GETLK, flock)) < 0) throw systemCallError("F_OFD_GETLK");
  return flock.getInt16(0, true) !== F_UNLCK;
}

const nativeFlock = lazy("flock", "int", ["int", "int"]);
const LOCK_EX = 2;
const LOCK_NB = 4;

/** Locks a folder, or all of a file, for this opening alone; false if another has it. True where there are no locks. */
export function lockWhole(fd: number): boolean {
  return uninterrupted(() => nativeFlock(fd, LOCK_EX | LOCK_NB)) >= 0 || koffi.errno() !== EAGAIN;
}
