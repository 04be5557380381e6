// Who else has a disk: advisory locks on single bytes of the image, the ones that QEMU takes, so that
// the two keep away from each other's images, too. Linux: fcntl(2), "Open file description locks";
// QEMU: block/file-posix.c. They go with the last descriptor of this opening, however the process ends.
import { readdirSync, readFileSync, statSync, type Stats } from "node:fs";
import { DiskError } from "../../errors.js";
import { isByteLocked, lockByteShared, unlockByte } from "../../sys/locks.js";

// QEMU's bytes: from 100 on what an open file does itself, from 200 on what it forbids to others.
const DOES = 100;
const FORBIDS = 200;
const READ = 0;
const WRITE = 1;

/** Throws DiskError, naming the other, if a disk that somebody writes would be shared. */
export function lockDisk(path: string, fd: number, isReadonly: boolean): void {
  // Takes its own locks first, then looks at those of others: of two at the same moment, at least one sees the other.
  // All locks are shared ones, which a descriptor for reading may take.
  const bytes = isReadonly ? [DOES + READ, FORBIDS + WRITE] : [DOES + READ, DOES + WRITE, FORBIDS + WRITE];
  for (const byte of bytes) attempt(path, () => lockByteShared(fd, byte));
  const conflicts: (readonly [byte: number, how: string])[] = [
    [DOES + WRITE, "which may write to it"],
    [FORBIDS + READ, "which shares it with nobody"],
  ];
  if (!isReadonly) conflicts.push([FORBIDS + WRITE, "which reads it and wants it to stay as it is"]);
  for (const [byte, how] of conflicts) {
    if (attempt(path, () => isByteLocked(fd, byte))) throw inUse(path, fd, byte, how);
  }
}

/** Another process may have the disk, which stays open here; `lockDisk` takes it back. */
export function unlockDisk(path: string, fd: number): void {
  for (const byte of [DOES + READ, DOES + WRITE, FORBIDS + WRITE]) attempt(path, () => unlockByte(fd, byte));
}

function attempt<Result>(path: string, call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    // A file system over a network may have no locks.
    throw new DiskError(`${path}: cannot be locked`, {
      cause: error,
      cure: "with lock=off it is used without; then nothing keeps two guests from spoiling it",
    });
  }
}

function inUse(path: string, fd: number, byte: number, how: string): DiskError {
  const pid = findHolder(fd, byte);
  if (pid === process.pid) {
    return new DiskError(`${path}: attached already, by this process`, {
      cure: "attach a disk once, or readonly each time",
    });
  }
  const holder = pid === undefined ? "another process" : `process ${String(pid)} (${nameOf(pid)})`;
  return new DiskError(`${path}: in use by ${holder}, ${how}`, {
    cure: "end that one first, or attach the disk readonly in both",
  });
}

/**
 * The kernel names no owner of such a lock; /proc tells whose descriptor has it. Undefined if that
 * process belongs to another user or is in another namespace.
 */
function findHolder(fd: number, byte: number): number | undefined {
  const own = statSync(`/proc/self/fd/${String(fd)}`);
  for (const pid of numbers("/proc")) {
    const folder = `/proc/${String(pid)}`;
    for (const other of numbers(`${folder}/fdinfo`)) {
      if (pid === process.pid && other === fd) continue;
      const file = statOf(`${folder}/fd/${String(other)}`);
      if (file?.ino !== own.ino || file.dev !== own.dev) continue;
      if (holdsByte(textOf(`${folder}/fdinfo/${String(other)}`), byte)) return pid;
    }
  }
  return undefined;
}

/** A line of fdinfo: "lock: 1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101". */
function holdsByte(fdinfo: string, byte: number): boolean {
  return [...fdinfo.matchAll(/^lock:.* OFDLCK .* (\d+) (\d+|EOF)$/gm)].some(
    ([, first, last]) => Number(first) <= byte && (last === "EOF" || byte <= Number(last)),
  );
}

// Processes end meanwhile, and those of other users cannot be read.
function numbers(folder: string): number[] {
  try {
    return readdirSync(folder)
      .map(Number)
      .filter((name) => Number.isInteger(name));
  } catch {
    return [];
  }
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function nameOf(pid: number): string {
  return textOf(`/proc/${String(pid)}/comm`).trim() || "unknown";
}
