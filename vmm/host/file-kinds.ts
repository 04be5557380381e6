// Files by what they begin or end with, for those who have been given the wrong one: what it is, and the
// command that makes of it what was wanted.
import { freshPath, shellWord } from "./shell-word.js";

/** What a kind of file is to somebody who wants a kernel, an initramfs or a disk. */
type Role =
  /** What writes the content of FILE to its standard output. */
  | { readonly decompress: string }
  /** An image whose blocks lie elsewhere than on the disk; the format's name is QEMU's. */
  | { readonly diskFormat: string }
  /** NEW is made of FILE: mostly a folder. */
  | { readonly unpack: string }
  | { readonly is: "archive of files for an initramfs" | "file system" | "disc" | "program" | "text" };

export interface FileKind {
  /** With its article. */
  readonly name: string;
  readonly role: Role;
}

/** A file, or what somebody has of it. */
export interface KindSource {
  readonly size: number;
  read(offset: number, length: number): Uint8Array;
}

interface Magic extends FileKind {
  /** From the file's end if negative. */
  readonly at: number;
  /** Latin-1; an underscore stands for any byte. */
  readonly bytes: string;
}

const FOOTER = -512;
const ANY = 0x5f;
/** `bytes` at the start of a file that have nearly all of the magic. */
const HEAD = 0x500;

function magic(name: string, at: number, bytes: string, role: Role): Magic {
  return { name, at, bytes, role };
}

/** The first that fits counts. */
const MAGICS: readonly Magic[] = [
  magic("a qcow2 image", 0, "QFI\xfb\0\0\0\x02", { diskFormat: "qcow2" }),
  magic("a qcow2 image", 0, "QFI\xfb\0\0\0\x03", { diskFormat: "qcow2" }),
  magic("a qcow image", 0, "QFI\xfb\0\0\0\x01", { diskFormat: "qcow" }),
  magic("a QED image", 0, "QED\0", { diskFormat: "qed" }),
  magic("a VMDK image", 0, "KDMV", { diskFormat: "vmdk" }),
  magic("a VMDK image", 0, "COWD", { diskFormat: "vmdk" }),
  magic("the description of a VMDK image", 0, "# Disk DescriptorFile", { diskFormat: "vmdk" }),
  magic("a VHDX image", 0, "vhdxfile", { diskFormat: "vhdx" }),
  magic("a VHD image", 0, "conectix", { diskFormat: "vpc" }),
  magic("a VHD image", FOOTER, "conectix", { diskFormat: "vpc" }),
  magic("a VDI image", 0x40, "\x7f\x10\xda\xbe", { diskFormat: "vdi" }),
  magic("a Parallels image", 0, "WithoutFreeSpace", { diskFormat: "parallels" }),
  magic("a Parallels image", 0, "WithouFreSpacExt", { diskFormat: "parallels" }),
  magic("a Bochs image", 0, "Bochs Virtual HD Image", { diskFormat: "bochs" }),
  magic("an Apple disk image", FOOTER, "koly", { diskFormat: "dmg" }),
  magic("an Android sparse image", 0, "\x3a\xff\x26\xed", { decompress: "simg2img" }),
  magic("compressed with xz", 0, "\xfd7zXZ\0", { decompress: "xz -dc" }),
  magic("compressed with gzip", 0, "\x1f\x8b\x08", { decompress: "gzip -dc" }),
  magic("compressed with Zstandard", 0, "\x28\xb5\x2f\xfd", { decompress: "zstd -dc" }),
  magic("compressed with bzip2", 0, "BZh_1AY&SY", { decompress: "bzip2 -dc" }),
  magic("compressed with LZ4, in its frame format", 0, "\x04\x22\x4d\x18", { decompress: "lz4 -dc" }),
  magic("compressed with LZ4, in its legacy format", 0, "\x02\x21\x4c\x18", { decompress: "lz4 -dc" }),
  magic("compressed with lzop", 0, "\x89LZO\0\r\n\x1a\n", { decompress: "lzop -dc" }),
  magic("compressed with LZMA", 0, "\x5d\0\0", { decompress: "xz -dc --format=lzma" }),
  magic("compressed with compress", 0, "\x1f\x9d", { decompress: "gzip -dc" }),
  magic("a ZIP archive", 0, "PK\x03\x04", { unpack: "unzip FILE -d NEW" }),
  magic("a 7z archive", 0, "7z\xbc\xaf\x27\x1c", { unpack: "7z x -oNEW FILE" }),
  magic("a Debian package", 0, "!<arch>\ndebian-binary", { unpack: "dpkg-deb -x FILE NEW" }),
  magic("an RPM package", 0, "\xed\xab\xee\xdb", { unpack: "mkdir NEW && rpm2archive - <FILE | tar -xzC NEW" }),
  magic("a cpio archive", 0, "070701", { is: "archive of files for an initramfs" }),
  magic("a cpio archive", 0, "070702", { is: "archive of files for an initramfs" }),
  magic("a cpio archive of the old kind (odc)", 0, "070707", { unpack: "bsdtar -cf NEW --format newc @FILE" }),
  magic("a cpio archive of the old kind (bin)", 0, "\xc7\x71", { unpack: "bsdtar -cf NEW --format newc @FILE" }),
  magic("an ISO 9660 image", 0x8001, "CD001", { is: "disc" }),
  magic("a squashfs file system", 0, "hsqs", { is: "file system" }),
  magic("a cramfs file system", 0, "\x45\x3d\xcd\x28", { is: "file system" }),
  magic("a romfs file system", 0, "-rom1fs-", { is: "file system" }),
  magic("an EROFS file system", 0x400, "\xe2\xe1\xf5\xe0", { is: "file system" }),
  magic("an ext2, ext3 or ext4 file system", 0x438, "\x53\xef", { is: "file system" }),
  magic("an XFS file system", 0, "XFSB", { is: "file system" }),
  magic("a Btrfs file system", 0x10040, "_BHRfS_M", { is: "file system" }),
  magic("a tar archive", 0x101, "ustar", { unpack: "mkdir NEW && tar -xf FILE -C NEW" }),
  magic("an ELF file", 0, "\x7fELF", { is: "program" }),
  magic("a Linux kernel (bzImage)", 0x202, "HdrS", { is: "program" }),
  magic("a Linux kernel for ARM64", 0x38, "ARM\x64", { is: "program" }),
  magic("a Linux kernel for RISC-V", 0x38, "RSC\x05", { is: "program" }),
  magic("an image for U-Boot", 0, "\x27\x05\x19\x56", { is: "program" }),
  magic("an EFI or Windows program", 0, "MZ", { is: "program" }),
  magic("a script", 0, "#!", { is: "text" }),
  magic("a web page", 0, "<!DOCTYPE", { is: "text" }),
  magic("a web page", 0, "<!doctype", { is: "text" }),
  magic("a web page", 0, "<html", { is: "text" }),
];

/** Undefined for what is none of these. */
export function kindOf(source: KindSource): FileKind | undefined {
  // Once: every boot with an initramfs asks.
  const head = source.read(0, Math.min(HEAD, source.size));
  return MAGICS.find(({ at, bytes }) => {
    const offset = at < 0 ? source.size + at : at;
    if (offset < 0 || offset + bytes.length > source.size) return false;
    if (offset + bytes.length <= head.length) return fits(bytes, head, offset);
    return fits(bytes, source.read(offset, bytes.length), 0);
  });
}

function fits(bytes: string, found: Uint8Array, offset: number): boolean {
  for (let index = 0; index < bytes.length; index++) {
    const byte = bytes.charCodeAt(index);
    if (byte !== ANY && byte !== found[offset + index]) return false;
  }
  return true;
}

/** The command that makes a file of what is in this one, and that file's path, which is a new one. */
export interface Conversion {
  readonly command: string;
  readonly result: string;
}

/** Undefined where nothing has to be, or can be, converted. */
export function conversionOf({ role }: FileKind, path: string, ending: string): Conversion | undefined {
  const file = shellWord(path);
  if ("diskFormat" in role) {
    const result = freshPath(path, ending);
    return { command: `qemu-img convert -f ${role.diskFormat} -O raw ${file} ${shellWord(result)}`, result };
  }
  if ("decompress" in role) {
    const result = freshPath(path, ending);
    const arrow = role.decompress === "simg2img" ? "" : ">";
    return { command: `${role.decompress} ${file} ${arrow}${shellWord(result)}`, result };
  }
  if ("unpack" in role) {
    const result = freshPath(path, "-unpacked");
    return { command: role.unpack.replaceAll("NEW", shellWord(result)).replace("FILE", file), result };
  }
  return undefined;
}
