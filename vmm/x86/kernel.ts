// Image -> guest memory and entry state, whatever its format.
import type { GuestMemory } from "../../devices/contracts.js";
import type { BootProtocol } from "../config/types.js";
import { KernelImageError } from "../errors.js";
import { MAX_MEMORY_MIB } from "../config/defaults.js";
import { memoryMibFor } from "../memory/advice.js";
import { HIGH_MEMORY_GPA, HIGH_RAM_GPA, MIB, MMIO_HOLE_GPA } from "../memory/layout.js";
import { isBzImage, parseBzImage } from "./bzimage.js";
import { COMMAND_LINE_SIZE } from "./cmdline.js";
import { ELF_MAGIC, parseElf } from "./elf.js";
import type { ImageSource } from "./image-source.js";
import { MAPPED_BYTES } from "./page-tables.js";
import { noKernel } from "./wrong-image.js";

export const KERNEL_FORMATS = ["elf-linux64", "elf-pvh", "bzimage"] as const;
export type KernelFormat = (typeof KERNEL_FORMATS)[number];

export interface LoadedKernel {
  readonly format: KernelFormat;
  /** Guest-physical address of the first instruction. */
  readonly entry: number;
  /** First address after everything that the kernel occupies early. */
  readonly end: number;
  /** From a bzImage, for the zero page. */
  readonly setupHeader: Uint8Array | undefined;
  /** Longest command line without its NUL. */
  readonly cmdlineMax: number;
  readonly initrdAddrMax: number;
}

/** Loads the kernel; throws KernelImageError for anything that cannot be booted. */
export function loadKernel(source: ImageSource, memory: GuestMemory, protocol: BootProtocol): LoadedKernel {
  if (source.size === 0) throw new KernelImageError(`${source.path}: the file is empty`);
  const head = source.read(0, 0x400);
  const magic = head.length < 4 ? 0 : new DataView(head.buffer, head.byteOffset).getUint32(0, true);
  if (magic === ELF_MAGIC) return loadElf(source, memory, protocol);
  if (isBzImage(head)) return loadBzImage(source, memory, protocol);
  throw noKernel(source);
}

function needRam(source: ImageSource, memory: GuestMemory, gpa: number, length: number, what: string): void {
  if (gpa < HIGH_RAM_GPA) {
    throw new KernelImageError(`${source.path}: ${what} at ${hex(gpa)} is below 1 MiB (${hex(HIGH_RAM_GPA)})`);
  }
  if (memory.contains(gpa, length)) return;
  const where = `${source.path}: ${what} from ${hex(gpa)} to ${hex(gpa + length)}`;
  const mib = memoryMibFor(gpa, length);
  if (mib === undefined) {
    const hole = `RAM ends at ${hex(MMIO_HOLE_GPA)} and goes on at ${hex(HIGH_MEMORY_GPA)}`;
    throw new KernelImageError(`${where} is where no guest has RAM: ${hole}, up to ${String(MAX_MEMORY_MIB)} MiB`, {
      cure: "link the kernel for another address: Linux lies at 16 MiB",
    });
  }
  throw new KernelImageError(`${where} is outside the guest's ${String(memory.size / MIB)} MiB of RAM`, {
    cure: `give the guest more memory: --memory ${String(mib)}`,
  });
}

function hex(address: number): string {
  return `0x${address.toString(16)}`;
}

function loadElf(source: ImageSource, memory: GuestMemory, protocol: BootProtocol): LoadedKernel {
  const image = parseElf(source);
  if (protocol === "pvh" && image.pvhEntry === undefined) {
    throw new KernelImageError(`${source.path}: no PVH note (XEN_ELFNOTE_PHYS32_ENTRY): build with CONFIG_PVH=y`);
  }
  for (const segment of image.segments) needRam(source, memory, segment.gpa, segment.memorySize, "a segment");
  const last = image.segments.at(-1);
  const end = last === undefined ? 0 : last.gpa + last.memorySize;
  // The note is a promise about the entry; e_entry alone promises startup_64 only for Linux.
  const usePvh = protocol === "pvh" || (protocol === "auto" && image.pvhEntry !== undefined);
  const entry = usePvh ? (image.pvhEntry ?? 0) : image.entry;
  // The entry must lie in bytes of the file: the rest of a segment is zeroes, which would run for ever.
  if (!image.segments.some(({ gpa, fileSize }) => entry >= gpa && entry < gpa + fileSize)) {
    throw new KernelImageError(`${source.path}: the entry point ${hex(entry)} is in no segment's bytes`);
  }
  if (entry >= MAPPED_BYTES) {
    throw new KernelImageError(`${source.path}: the entry point ${hex(entry)} is not below ${hex(MAPPED_BYTES)}`);
  }
  // The rest of each segment, its BSS, is zero already: guest memory is fresh.
  for (const { offset, gpa, fileSize } of image.segments) source.readInto(offset, gpa, fileSize);
  return {
    format: usePvh ? "elf-pvh" : "elf-linux64",
    entry,
    end,
    setupHeader: undefined,
    cmdlineMax: COMMAND_LINE_SIZE - 1,
    initrdAddrMax: 0xffff_ffff,
  };
}

function loadBzImage(source: ImageSource, memory: GuestMemory, protocol: BootProtocol): LoadedKernel {
  if (protocol === "pvh") {
    throw new KernelImageError(`${source.path}: a bzImage has no PVH entry; give its vmlinux, or --protocol linux64`);
  }
  const image = parseBzImage(source);
  const length = Math.max(image.initSize, image.kernelSize);
  needRam(source, memory, image.loadGpa, length, "the kernel");
  source.readInto(image.kernelOffset, image.loadGpa, image.kernelSize);
  return {
    format: "bzimage",
    entry: image.entry,
    end: image.loadGpa + length,
    setupHeader: image.setupHeader,
    cmdlineMax: image.cmdlineSize,
    initrdAddrMax: image.initrdAddrMax,
  };
}
