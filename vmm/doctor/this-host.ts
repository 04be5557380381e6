// The host that this process runs on, as the checks see it.
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  statSync,
  type Stats,
} from "node:fs";
import { ALL_TARGETS, missingPackages } from "../host/first-use.js";
import { defaultInitrd, defaultKernel, fastKernel } from "../host/guest-files.js";
import { findProgram } from "../host/programs.js";
import { landlockAbi } from "../jail/landlock.js";
import { cpuid } from "../sys/cpuid.js";
import type { FileFacts, GuestView, HostFiles, HostView } from "./host-view.js";
import { viewKvm } from "./kvm-view.js";

/** A record of /dev/kmsg is at most this long, `bytes` (CONSOLE_EXT_LOG_MAX). */
const KMSG_RECORD = 8192;
const MSR_BYTES = 8;

/** For reads that a file system may refuse: a refusal counts as no value. */
function orUndefined<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

function factsOf(stat: Stats): FileFacts {
  const kind = stat.isCharacterDevice()
    ? "character-device"
    : stat.isDirectory()
      ? "directory"
      : stat.isFile()
        ? "file"
        : "other";
  return {
    kind,
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    // linux/kdev_t.h, as far as character devices use it.
    major: (stat.rdev >>> 8) & 0xfff,
    minor: (stat.rdev & 0xff) | ((stat.rdev >>> 12) & ~0xff),
  };
}

/** The tree below `root`, which ends in no slash: "" is the host's own. */
export function filesBelow(root: string): HostFiles {
  return {
    read: (path) => orUndefined(() => readFileSync(root + path, "utf8").trim()),
    list: (path) => orUndefined(() => readdirSync(root + path)) ?? [],
    facts: (path) => orUndefined(() => factsOf(statSync(root + path))),
  };
}

/** Records of the log so far; a read that finds no more fails with EAGAIN. */
function kernelLog(): string | undefined {
  const fd = orUndefined(() => openSync("/dev/kmsg", constants.O_RDONLY | constants.O_NONBLOCK));
  if (fd === undefined) return undefined;
  const record = Buffer.alloc(KMSG_RECORD);
  const lines: string[] = [];
  try {
    for (;;) lines.push(record.toString("latin1", 0, readSync(fd, record)));
  } catch {
    // EAGAIN: all has been read. EPERM: kernel.dmesg_restrict.
    return lines.length === 0 ? undefined : lines.join("");
  } finally {
    closeSync(fd);
  }
}

function readMsr(index: number): bigint | undefined {
  return orUndefined(() => {
    const fd = openSync("/dev/cpu/0/msr", "r");
    try {
      const value = Buffer.alloc(MSR_BYTES);
      return readSync(fd, value, 0, MSR_BYTES, index) === MSR_BYTES ? value.readBigUInt64LE() : undefined;
    } finally {
      closeSync(fd);
    }
  });
}

function viewGuest(): GuestView {
  const hasInitramfs = existsSync(defaultInitrd());
  const paths = { default: defaultKernel(), fast: fastKernel() };
  const kernels = (["default", "fast"] as const).filter((name) => existsSync(paths[name]));
  const isBuilt = hasInitramfs && kernels.length > 0;
  return { hasInitramfs, kernels, missingPackages: isBuilt ? [] : missingPackages(ALL_TARGETS) };
}

export function thisHost(): HostView {
  return {
    files: filesBelow(""),
    environment: process.env,
    kvm: viewKvm(),
    guest: viewGuest(),
    cpuid: (leaf) => orUndefined(() => cpuid(leaf)),
    msr: readMsr,
    kernelLog,
    landlockAbi: landlockAbi(),
    findProgram,
  };
}
