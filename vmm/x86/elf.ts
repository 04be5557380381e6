// ELF64 kernels: program headers, and the PVH note that names a 32-bit entry.
// System V ABI, chapter 5 and its AMD64 supplement; PVH: XEN_ELFNOTE_PHYS32_ENTRY.
// Sections, relocations and symbols are left out: a kernel is linked for its address.
import { KernelImageError } from "../errors.js";
import type { ImageSource } from "./image-source.js";

export const ELF_MAGIC = 0x464c457f;

const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const EV_CURRENT = 1;
const ET_EXEC = 2;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_INTERP = 3;
const PT_NOTE = 4;

/** What people have at hand besides. */
const MACHINES: Readonly<Record<number, string>> = {
  3: "i386",
  21: "ppc64",
  22: "s390",
  40: "ARM",
  183: "ARM64",
  243: "RISC-V",
  258: "LoongArch",
};
const TYPES: Readonly<Record<number, string>> = {
  1: "an object or a kernel module",
  3: "a library or a program",
  4: "a core dump",
};

const SIZEOF_EHDR = 64;
const SIZEOF_PHDR = 56;
/** A kernel has five; the limit bounds what a bad header makes us read. */
const MAX_PHDRS = 128;
const MAX_NOTE_BYTES = 0x10000;

const XEN_ELFNOTE_PHYS32_ENTRY = 18;

/** One PT_LOAD. Offsets and sizes in bytes. */
export interface ElfSegment {
  readonly offset: number;
  readonly gpa: number;
  readonly fileSize: number;
  readonly memorySize: number;
}

export interface ElfImage {
  /** e_entry: for Linux, the physical address of startup_64. */
  readonly entry: number;
  /** 32-bit entry of the PVH note. */
  readonly pvhEntry: number | undefined;
  /** In ascending order of address. */
  readonly segments: readonly ElfSegment[];
}

function named(value: number, names: Readonly<Record<number, string>>): string {
  const name = names[value];
  return name === undefined ? String(value) : `${String(value)} (${name})`;
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** 64-bit field as a number; anything a file or an address space cannot hold is refused. */
function field64(data: DataView, at: number, name: string, source: ImageSource): number {
  const value = data.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new KernelImageError(`${source.path}: ${name} 0x${value.toString(16)} is beyond 2^53`);
  }
  return Number(value);
}

/** Reads and checks the headers; memory bounds are the loader's business. */
export function parseElf(source: ImageSource): ElfImage {
  const { path, size } = source;
  const header = source.read(0, SIZEOF_EHDR);
  if (header.length < SIZEOF_EHDR) {
    throw new KernelImageError(
      `${path}: ${String(size)} bytes are too few for an ELF header of ${String(SIZEOF_EHDR)}`,
    );
  }
  const ehdr = view(header);
  if (header[4] !== ELFCLASS64)
    throw new KernelImageError(`${path}: ELF class ${String(header[4])}, needed is 2 (64-bit)`);
  if (header[5] !== ELFDATA2LSB) {
    throw new KernelImageError(`${path}: ELF data encoding ${String(header[5])}, needed is 1 (little-endian)`);
  }
  for (const [name, version] of [
    ["EI_VERSION", ehdr.getUint8(6)],
    ["e_version", ehdr.getUint32(20, true)],
  ] as const) {
    if (version !== EV_CURRENT) throw new KernelImageError(`${path}: ELF ${name} ${String(version)}, needed is 1`);
  }
  const machine = ehdr.getUint16(18, true);
  if (machine !== EM_X86_64) {
    throw new KernelImageError(`${path}: ELF machine ${named(machine, MACHINES)}, needed is 62 (x86-64)`);
  }
  const type = ehdr.getUint16(16, true);
  if (type !== ET_EXEC) {
    throw new KernelImageError(`${path}: ELF type ${named(type, TYPES)}, needed is 2 (executable)`);
  }
  const phoff = field64(ehdr, 32, "e_phoff", source);
  const phentsize = ehdr.getUint16(54, true);
  const phnum = ehdr.getUint16(56, true);
  if (phentsize !== SIZEOF_PHDR || phnum === 0 || phnum > MAX_PHDRS) {
    throw new KernelImageError(
      `${path}: ${String(phnum)} program headers of ${String(phentsize)} bytes, needed are 1 to ${String(MAX_PHDRS)} of ${String(SIZEOF_PHDR)}`,
    );
  }
  const ehsize = ehdr.getUint16(52, true);
  if (ehsize !== SIZEOF_EHDR) {
    throw new KernelImageError(
      `${path}: an ELF header of ${String(ehsize)} bytes (e_ehsize), needed is ${String(SIZEOF_EHDR)}`,
    );
  }
  if (phoff < SIZEOF_EHDR) {
    throw new KernelImageError(
      `${path}: program headers at ${String(phoff)} (e_phoff) lie in the ELF header's ${String(SIZEOF_EHDR)} bytes`,
    );
  }
  if (phoff + phnum * SIZEOF_PHDR > size) {
    throw new KernelImageError(
      `${path}: program headers at ${String(phoff)} end after the file's ${String(size)} bytes`,
    );
  }

  const headers = view(source.read(phoff, phnum * SIZEOF_PHDR));
  const segments: ElfSegment[] = [];
  let pvhEntry: number | undefined;
  for (let i = 0; i < phnum; i++) {
    const at = i * SIZEOF_PHDR;
    const kind = headers.getUint32(at, true);
    if (kind === PT_INTERP) {
      throw new KernelImageError(`${path}: a program for a system that runs already (PT_INTERP), not a kernel`);
    }
    if (kind !== PT_LOAD && kind !== PT_NOTE) continue;
    const offset = field64(headers, at + 8, "p_offset", source);
    const fileSize = field64(headers, at + 32, "p_filesz", source);
    if (offset + fileSize > size) {
      throw new KernelImageError(
        `${path}: segment ${String(i)} ends at byte ${String(offset + fileSize)} of a file of ${String(size)}`,
      );
    }
    if (kind === PT_NOTE) {
      pvhEntry ??= findPvhEntry(view(source.read(offset, Math.min(fileSize, MAX_NOTE_BYTES))), source);
      continue;
    }
    const memorySize = field64(headers, at + 40, "p_memsz", source);
    if (fileSize > memorySize) {
      throw new KernelImageError(
        `${path}: segment ${String(i)} has ${String(fileSize)} bytes in the file but ${String(memorySize)} in memory`,
      );
    }
    if (memorySize > 0)
      segments.push({ offset, gpa: field64(headers, at + 24, "p_paddr", source), fileSize, memorySize });
  }
  if (segments.length === 0) throw new KernelImageError(`${path}: no segment to load`);
  segments.sort((a, b) => a.gpa - b.gpa);
  segments.reduce((previous, segment) => {
    if (previous.gpa + previous.memorySize > segment.gpa) {
      throw new KernelImageError(
        `${path}: segments overlap at 0x${segment.gpa.toString(16)}: the one before ends at 0x${(previous.gpa + previous.memorySize).toString(16)}`,
      );
    }
    return segment;
  });
  return { entry: field64(ehdr, 24, "e_entry", source), pvhEntry, segments };
}

/**
 * Walks the notes: name size, descriptor size, type, then both padded to 4 bytes. The entry has the size of
 * a pointer.
 */
function findPvhEntry(notes: DataView, source: ImageSource): number | undefined {
  const pad = (length: number): number => (length + 3) & ~3;
  for (let at = 0; at + 12 <= notes.byteLength;) {
    const nameSize = notes.getUint32(at, true);
    const descriptorSize = notes.getUint32(at + 4, true);
    const type = notes.getUint32(at + 8, true);
    const name = at + 12;
    if (nameSize > MAX_NOTE_BYTES || descriptorSize > MAX_NOTE_BYTES) return undefined;
    const descriptor = name + pad(nameSize);
    const next = descriptor + pad(descriptorSize);
    if (next > notes.byteLength) return undefined;
    const isXen = nameSize === 4 && notes.getUint32(name, true) === 0x006e6558; // "Xen\0"
    if (isXen && type === XEN_ELFNOTE_PHYS32_ENTRY) {
      if (descriptorSize === 4) return notes.getUint32(descriptor, true);
      if (descriptorSize === 8) return field64(notes, descriptor, "XEN_ELFNOTE_PHYS32_ENTRY", source);
    }
    at = next;
  }
  return undefined;
}
