// A file that was given for a kernel or an initramfs and is something else: what it is, and what makes of
// it what was wanted.
import { KernelImageError } from "../errors.js";
import { conversionOf, kindOf, type FileKind } from "../host/file-kinds.js";
import { shellWord } from "../host/shell-word.js";
import type { ImageSource } from "./image-source.js";

/** Linux skips zeroes before a cpio archive, in words of 4 bytes; more than these nobody writes. */
const MAX_PADDING = 0x1_0000;

/** What Linux unpacks, or takes for the file system of an old initrd. Linux: init/initramfs.c, lib/decompress.c. */
const UNPACKED: readonly string[] = [
  "compressed with gzip",
  "compressed with bzip2",
  "compressed with LZMA",
  "compressed with xz",
  "compressed with lzop",
  "compressed with LZ4, in its legacy format",
  "compressed with Zstandard",
];

/** The error about a file that is neither an ELF file nor a bzImage. */
export function noKernel(source: ImageSource): KernelImageError {
  const kind = kindOf(source);
  const what = kind === undefined ? "neither an ELF file nor a bzImage" : `${kind.name}, not a kernel`;
  return new KernelImageError(`${source.path}: ${what}`, { cure: kernelCure(kind, source.path) });
}

function kernelCure(kind: FileKind | undefined, path: string): string {
  const conversion = kind === undefined ? undefined : conversionOf(kind, path, ".elf");
  if (kind !== undefined && "is" in kind.role) {
    if (kind.role.is === "archive of files for an initramfs") {
      return `give it as the initramfs: --initrd ${shellWord(path)}`;
    }
    if (kind.role.is === "file system" || kind.role.is === "disc") return asDisk(path);
  } else if (kind !== undefined && conversion !== undefined) {
    if ("diskFormat" in kind.role) return "a kernel is a file of its own: give the one that is in the image";
    const then = "unpack" in kind.role ? "and give the kernel in it" : `then --kernel ${shellWord(conversion.result)}`;
    return `unpack it: ${conversion.command}, ${then}`;
  }
  return "give an uncompressed vmlinux or a bzImage (vmlinuz) for x86-64";
}

function asDisk(path: string): string {
  return `give it as a disk: --disk ${shellWord(`path=${path.replaceAll(",", ",,")},readonly`)}`;
}

/** Throws KernelImageError for what no Linux takes for an initramfs. */
export function checkInitrd(source: ImageSource): void {
  const { path, size } = source;
  if (size === 0) throw new KernelImageError(`${path}: the file is empty, not an initramfs`, { cure: "--no-initrd" });
  const kind = kindOf(source);
  const isTaken =
    kind === undefined
      ? isPaddedCpio(source)
      : UNPACKED.includes(kind.name) ||
        ("is" in kind.role && (kind.role.is === "archive of files for an initramfs" || kind.role.is === "file system"));
  if (isTaken) return;
  const what = kind === undefined ? "no cpio archive, nor one that Linux unpacks" : `${kind.name}, not an initramfs`;
  throw new KernelImageError(`${path}: ${what}`, { cure: initrdCure(kind, path) });
}

function initrdCure(kind: FileKind | undefined, path: string): string {
  const make = "(cd FOLDER && find . | cpio -o -H newc) >initramfs.cpio";
  const conversion = kind === undefined ? undefined : conversionOf(kind, path, ".cpio");
  if (kind !== undefined && "is" in kind.role) {
    if (kind.role.is === "disc") return asDisk(path);
    if (kind.role.is === "program") return `a kernel is given as one: --kernel ${shellWord(path)}`;
  } else if (kind !== undefined && conversion !== undefined) {
    if ("diskFormat" in kind.role) return `a disk is given as one: ${conversion.command}`;
    if ("decompress" in kind.role || kind.name.includes("cpio")) return `repack it: ${conversion.command}`;
    return `unpack it: ${conversion.command}; a folder becomes an initramfs with ${make}`;
  }
  return `make one of a folder: ${make}`;
}

function isPaddedCpio(source: ImageSource): boolean {
  const head = source.read(0, MAX_PADDING);
  const start = head.findIndex((byte) => byte !== 0);
  return start > 0 && start % 4 === 0 && Buffer.from(head.subarray(start, start + 5)).toString("latin1") === "07070";
}
