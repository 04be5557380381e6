// How a guest gets to user space: through which initramfs, if any, and onto which root. The root is a disk
// that is said to be it, or what the user's own root= says, of which the user's word counts.
//   no root                       the initramfs is the root
//   a root                        the kernel mounts it and starts its init, no initramfs
//   a root and a COMMAND          vmlet's init mounts it, changes into it and runs the command
//   a root and an --initrd        that initramfs finds `root=` on the command line, as any does
import { diskName } from "../config/disks.js";
import { ConfigError } from "../errors.js";
import type { BootOptions } from "./arguments.js";
import { defaultInitrd, tinyInitrd } from "../host/guest-files.js";
import { kernelWords, type KernelWords } from "./kernel-words.js";
import { contentOf, type Partition } from "./partitions.js";

type Options = Pick<BootOptions, "initrd" | "noInitrd" | "disks" | "command" | "cmdline">;

/** An initramfs calls itself that. */
const NO_ROOTS: readonly string[] = ["/dev/ram", "/dev/ram0"];
/** Words about a root, which do nothing without one. */
/** Others of an MBR table are in tables of their own. */
const FIRST_FOUR = 4;
const ABOUT_ROOT = ["rootfstype", "rootflags"] as const;

/** Path of the initramfs; throws ConfigError for a command that nothing could run. */
export function chooseInitrd(options: Options): string | undefined {
  const { initrd, noInitrd, command } = options;
  if (initrd !== undefined) return initrd;
  if (noInitrd) {
    if (command.length === 0) return undefined;
    throw new ConfigError(["A command needs an initramfs with vmlet's init, and --no-initrd leaves it out"]);
  }
  if (rootOf(options) === undefined) return defaultInitrd();
  return command.length > 0 ? tinyInitrd() : undefined;
}

/** Has vmlet's init change into the root before it runs the command. */
export function changeRootArguments(options: Options): string[] {
  const root = options.initrd === undefined && options.command.length > 0 ? rootOf(options) : undefined;
  return root === undefined ? [] : [`vmlet.root=${root}`];
}

/** Throws ConfigError for words of the user's that would do nothing, or take from COMMAND what runs it. */
export function checkUserWords(options: Options): void {
  const { initrd, noInitrd, command } = options;
  // Another initramfs makes of them what it likes.
  if (initrd !== undefined) return;
  const words = kernelWords(options.cmdline ?? "");
  const problems: string[] = [];
  const init = words.get("init");
  const rdinit = words.get("rdinit");
  const hasRoot = rootOf(options) !== undefined;
  const hasInitrd = !noInitrd && (!hasRoot || command.length > 0);
  if (command.length > 0) {
    for (const key of ["init", "rdinit", "vmlet.exec", "vmlet.root"]) {
      const value = words.get(key);
      if (value !== undefined) problems.push(`${key}=${value} and a COMMAND: vmlet's init runs COMMAND; leave one out`);
    }
  } else {
    if (init !== undefined && hasInitrd) {
      problems.push(`init=${init} has no effect: an initramfs has rdinit=, and init= is for a root disk`);
    }
    // Without one by the user's wish, the kernel may bring its own.
    if (rdinit !== undefined && !hasInitrd && !noInitrd) {
      problems.push(`rdinit=${rdinit} has no effect: a root disk has init=, and rdinit= is for an initramfs`);
    }
  }
  for (const key of ABOUT_ROOT) {
    const value = words.get(key);
    if (value !== undefined && !hasRoot && !noInitrd) {
      problems.push(`${key}=${value} has no effect without a root: --disk path=FILE,root, or root=`);
    }
  }
  const rootProblem = noInitrd ? undefined : (problemOfRoot(options, words) ?? problemOfRootDisk(options, words));
  if (rootProblem !== undefined) problems.push(rootProblem);
  if (problems.length > 0) throw new ConfigError(problems);
}

/** The device's name in the guest, or as the user has written it; undefined if the initramfs is the root. */
function rootOf({ disks, cmdline }: Pick<Options, "disks" | "cmdline">): string | undefined {
  const wanted = kernelWords(cmdline ?? "").get("root");
  if (wanted !== undefined && wanted !== "") {
    return NO_ROOTS.includes(wanted) ? undefined : (findPartition(wanted, disks) ?? wanted);
  }
  const index = disks.findIndex(({ isRoot }) => isRoot === true);
  return index < 0 ? undefined : `/dev/${diskName(index)}`;
}

/** Of a root that the kernel, or vmlet's init, would wait for or not find. */
function problemOfRoot({ disks, command }: Options, words: KernelWords): string | undefined {
  const root = words.get("root");
  if (root === undefined) return undefined;
  const count = String(disks.length);
  const [, letter] = /^(?:\/dev\/)?vd([a-z])\d*$/.exec(root) ?? [];
  if (letter !== undefined && letter.charCodeAt(0) - "a".charCodeAt(0) >= disks.length) {
    return `root=${root} names a disk that is not there: ${count} ${disks.length === 1 ? "is" : "are"} attached with --disk`;
  }
  const partitionProblem = problemOfPartition(root, disks);
  if (partitionProblem !== undefined) return partitionProblem;
  if (/^(UUID|LABEL)=/i.test(root)) {
    return `root=${root}: only an initramfs of a distribution finds file systems by that; name the device, or PARTUUID=`;
  }
  if (!/^PART(UUID|LABEL)=/.test(root)) return undefined;
  // With an offset from it, the kernel looks further; vmlet's init does not.
  const isPlain = !root.includes("/PARTNROFF=");
  if (isPlain && findPartition(root, disks) === undefined) return `root=${root}: no disk has such a partition`;
  return isPlain || command.length === 0 ? undefined : `root=${root}: name the device itself to run a COMMAND on it`;
}

/** Of "/dev/vda1"; the tables that are known here are those of PCs, so only what is in one of them counts. */
function problemOfPartition(root: string, disks: Options["disks"]): string | undefined {
  const [, letter = "", digits = ""] = /^\/dev\/vd([a-z])(\d+)$/.exec(root) ?? [];
  const disk = disks[letter.charCodeAt(0) - "a".charCodeAt(0)];
  if (disk === undefined) return undefined;
  const { partitions, isFileSystem } = contentOf(disk.path, disk.blockSize);
  if (isFileSystem) return `root=${root}: ${disk.path} is one file system, without partitions: root=/dev/vd${letter}`;
  const isKnown = partitions.length > 0 && Number(digits) <= FIRST_FOUR;
  if (!isKnown || partitions.some(({ number }) => number === Number(digits))) return undefined;
  return `root=${root}: ${disk.path} has no partition ${digits}, only ${listed(partitions)}`;
}

/** Of a disk that is said to be the root, and has partitions instead of a file system. */
function problemOfRootDisk({ disks }: Options, words: KernelWords): string | undefined {
  const index = disks.findIndex(({ isRoot }) => isRoot === true);
  const disk = disks[index];
  if (disk === undefined || words.has("root")) return undefined;
  const { partitions } = contentOf(disk.path, disk.blockSize);
  const [first] = partitions;
  if (first === undefined) return undefined;
  const example = `root=/dev/${diskName(index)}${String(first.number)}`;
  return `${disk.path} has partitions (${listed(partitions)}): say which is the root: --cmdline ${example}`;
}

function listed(partitions: readonly Partition[]): string {
  return partitions.map(({ number }) => String(number)).join(", ");
}

/** "PARTUUID=…" or "PARTLABEL=…" -> "/dev/vda1"; undefined if it is neither, or nowhere. */
function findPartition(root: string, disks: Options["disks"]): string | undefined {
  const [, kind, wanted = ""] = /^PART(UUID|LABEL)=(.+)$/.exec(root) ?? [];
  if (kind === undefined) return undefined;
  for (const [index, { path, blockSize }] of disks.entries()) {
    const found = contentOf(path, blockSize).partitions.find(({ uuid, label }) =>
      kind === "UUID" ? uuid === wanted.toLowerCase() : label === wanted,
    );
    if (found !== undefined) return `/dev/${diskName(index)}${String(found.number)}`;
  }
  return undefined;
}
