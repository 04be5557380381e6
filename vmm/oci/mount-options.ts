// Options of config.json's mounts, as mount(8) has them: flags of mount(2), how the mount propagates, and words for the file
// system itself. OCI runtime-spec, "Linux mount options".
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_SYNCHRONOUS = 16;
const MS_REMOUNT = 32;
const MS_MANDLOCK = 64;
const MS_DIRSYNC = 128;
const MS_NOSYMFOLLOW = 256;
const MS_NOATIME = 1024;
const MS_NODIRATIME = 2048;
const MS_BIND = 4096;
const MS_REC = 16_384;
const MS_SILENT = 32_768;
const MS_UNBINDABLE = 1 << 17;
const MS_PRIVATE = 1 << 18;
const MS_SLAVE = 1 << 19;
const MS_SHARED = 1 << 20;
const MS_RELATIME = 1 << 21;
const MS_I_VERSION = 1 << 23;
const MS_STRICTATIME = 1 << 24;
const MS_LAZYTIME = 1 << 25;

const SET: Readonly<Record<string, number>> = {
  bind: MS_BIND,
  rbind: MS_BIND | MS_REC,
  dirsync: MS_DIRSYNC,
  iversion: MS_I_VERSION,
  lazytime: MS_LAZYTIME,
  mand: MS_MANDLOCK,
  noatime: MS_NOATIME,
  nodev: MS_NODEV,
  nodiratime: MS_NODIRATIME,
  noexec: MS_NOEXEC,
  nosuid: MS_NOSUID,
  nosymfollow: MS_NOSYMFOLLOW,
  relatime: MS_RELATIME,
  remount: MS_REMOUNT,
  ro: MS_RDONLY,
  silent: MS_SILENT,
  strictatime: MS_STRICTATIME,
  sync: MS_SYNCHRONOUS,
};
const CLEAR: Readonly<Record<string, number>> = {
  defaults: 0,
  async: MS_SYNCHRONOUS,
  atime: MS_NOATIME,
  dev: MS_NODEV,
  diratime: MS_NODIRATIME,
  exec: MS_NOEXEC,
  loud: MS_SILENT,
  noiversion: MS_I_VERSION,
  nolazytime: MS_LAZYTIME,
  nomand: MS_MANDLOCK,
  norelatime: MS_RELATIME,
  nostrictatime: MS_STRICTATIME,
  rw: MS_RDONLY,
  suid: MS_NOSUID,
  symfollow: MS_NOSYMFOLLOW,
};
const PROPAGATION: Readonly<Record<string, number>> = {
  private: MS_PRIVATE,
  rprivate: MS_PRIVATE | MS_REC,
  shared: MS_SHARED,
  rshared: MS_SHARED | MS_REC,
  slave: MS_SLAVE,
  rslave: MS_SLAVE | MS_REC,
  unbindable: MS_UNBINDABLE,
  runbindable: MS_UNBINDABLE | MS_REC,
};
/** For the mount and all that is mounted below it: mount_setattr(2). In a VM there is nothing below but what the host has there. */
const RECURSIVE =
  /^r(ro|rw|nosuid|suid|nodev|dev|noexec|exec|nodiratime|diratime|relatime|norelatime|noatime|atime|strictatime|nostrictatime|nosymfollow|symfollow)$/;

export const MOUNT_OPTIONS: readonly string[] = [
  ...[...Object.keys(SET), ...Object.keys(CLEAR), ...Object.keys(PROPAGATION), "rro", "rrw"].sort(),
];

export interface MountFlags {
  /** Without MS_BIND and MS_REC. */
  readonly flags: number;
  readonly isBind: boolean;
  readonly isRecursive: boolean;
  readonly isReadonly: boolean;
  /** So is what is mounted below. */
  readonly isReadonlyBelow: boolean;
  /** 0: as it is. */
  readonly propagation: number;
  /** For the file system. */
  readonly data: string;
}

export function mountFlags(options: readonly string[] = []): MountFlags {
  let flags = 0;
  let propagation = 0;
  let isReadonlyBelow = false;
  const data: string[] = [];
  for (const word of options) {
    const option = RECURSIVE.test(word) ? word.slice(1) : word;
    if (word === "rro" || word === "rrw") isReadonlyBelow = word === "rro";
    if (Object.hasOwn(SET, option)) flags |= SET[option] ?? 0;
    else if (Object.hasOwn(CLEAR, option)) flags &= ~(CLEAR[option] ?? 0);
    else if (Object.hasOwn(PROPAGATION, option)) propagation = PROPAGATION[option] ?? 0;
    // runc's own: a tmpfs with what lies below it. Ours begins empty.
    else if (option !== "tmpcopyup") data.push(option);
  }
  return {
    flags: flags & ~(MS_BIND | MS_REC),
    isBind: (flags & MS_BIND) !== 0,
    isRecursive: (flags & MS_REC) !== 0,
    isReadonly: (flags & MS_RDONLY) !== 0,
    isReadonlyBelow,
    propagation,
    data: data.join(","),
  };
}
