// Failures of system calls in words. The user has to repair a path, and "ELOOP" does not tell how.

const TEXTS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  ENOTDIR: "a part of the path is not a folder",
  ELOOP: "too many symbolic links, or one that leads to itself",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EISDIR: "a folder",
  EEXIST: "exists already",
  ENAMETOOLONG: "the name is too long",
  ENOSPC: "no space left on the device",
  EDQUOT: "the disk quota is used up",
  EFBIG: "larger than a file may be here (ulimit -f)",
  EROFS: "on a read-only file system",
  EMFILE: "too many open files (ulimit -n)",
  ENFILE: "too many open files on this host",
  ENOMEM: "not enough memory",
  EAGAIN: "no more processes or memory for now (ulimit -u)",
  ETXTBSY: "a program that is running",
  ENXIO: "a device that is not there, or a FIFO that nobody reads",
  ENODEV: "no such device",
  ENOMEDIUM: "a drive without a medium",
  EBUSY: "in use",
  EIO: "the device fails",
  EPIPE: "nobody reads it",
  ESTALE: "gone from the file server",
  ENOTSUP: "not supported there",
  EOPNOTSUPP: "not supported there",
  EXDEV: "on another file system",
  ECONNREFUSED: "nobody listens there",
  EINVAL: "not a valid argument",
};

/** The text for an errno by name, the name behind it. */
export function errnoText(code: string): string {
  const text = TEXTS[code];
  return text === undefined ? code : `${text} (${code})`;
}

/** Defects of this program, whatever the host is like. */
const OUR_FAULT = new Set(["EBADF", "EFAULT", "EINVAL", "ENOTTY", "ENOSYS", "EDEADLK"]);

/**
 * An error of Node's from a system call: what was done to which file, and why it could not be. Undefined
 * for anything else, and where no host and no user can be the reason.
 */
export function describeSystemError(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, syscall, path, dest } = error as NodeJS.ErrnoException & { dest?: string };
  if (code === undefined || syscall === undefined || !/^E[A-Z0-9]+$/.test(code) || OUR_FAULT.has(code))
    return undefined;
  // "spawn make" holds the name already.
  const what = syscall.startsWith("spawn ") ? syscall.slice(6) : (dest ?? path);
  return what === undefined || what === "" ? `${syscall}: ${errnoText(code)}` : `${what}: ${errnoText(code)}`;
}
