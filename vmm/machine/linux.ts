// Linux, booted into a machine: its image, command line and tables go into guest memory before the
// machine exists, its entry state into the vCPUs afterwards. DESIGN.md, "Boot", steps 5 to 8 and 12.
import { resolve } from "node:path";
import type { ResolvedConfig } from "../config/types.js";
import { HostError } from "../errors.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import { e820Entries } from "../memory/e820.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import { FileImage, type FileStamp } from "../x86/file-image.js";
import { writeAcpiTables } from "../x86/acpi/tables.js";
import { writeBootParams } from "../x86/boot-params.js";
import { checkCmdline, writeCmdline } from "../x86/cmdline.js";
import { writeGdt } from "../x86/gdt.js";
import { placeInitrd, type InitrdRange } from "../x86/initrd.js";
import { loadKernel, type LoadedKernel } from "../x86/kernel.js";
import { writeMpTable } from "../x86/mptable.js";
import { writePageTables } from "../x86/page-tables.js";
import { writeStartInfo } from "../x86/pvh.js";
import { entryCode, entryRegs, setEntrySregs } from "../x86/regs.js";
import { setGeneration } from "./generation-id.js";
import { virtioParameters, type DeviceAddresses } from "../x86/virtio-ranges.js";
import { checkInitrd } from "../x86/wrong-image.js";

export interface LinuxImages {
  readonly kernel: FileImage;
  readonly initrd: FileImage | undefined;
}

/** A file that was booted, as it was then; or its hash, null if that is not known. */
export type BootImage = { readonly path: string; readonly stamp: FileStamp } | { readonly sha256: string | null };

export interface BootImages {
  readonly kernel: BootImage;
  readonly initrd: BootImage | undefined;
}

export function bootImagesOf({ kernel, initrd }: LinuxImages): BootImages {
  const image = ({ path, stamp }: FileImage): BootImage => ({ path: resolve(path), stamp });
  return { kernel: image(kernel), initrd: initrd === undefined ? undefined : image(initrd) };
}

/** Throws KernelImageError; `undo` takes what closes the files. */
export function openImages(
  config: Pick<ResolvedConfig, "kernel" | "initrd">,
  undo: (close: () => void) => void,
): LinuxImages {
  const open = (path: string): FileImage => {
    const image = FileImage.open(path);
    undo(() => {
      image.close();
    });
    return image;
  };
  return { kernel: open(config.kernel), initrd: config.initrd === undefined ? undefined : open(config.initrd) };
}

/** Has what is large read by another thread from now on: `reads` gets the promises. */
export function readLater({ kernel, initrd }: LinuxImages, reads: Promise<void>[]): void {
  kernel.later = reads;
  if (initrd !== undefined) initrd.later = reads;
}

/** What of Linux is in guest memory. */
export interface LoadedImages {
  readonly kernel: LoadedKernel;
  readonly initrd: InitrdRange | undefined;
}

/** Puts kernel and initrd into guest memory. Throws KernelImageError. */
export function loadImages(
  { protocol }: Pick<ResolvedConfig, "protocol">,
  memory: MappedGuestMemory,
  { kernel: kernelFile, initrd: initrdFile }: LinuxImages,
): LoadedImages {
  kernelFile.memory = memory;
  const kernel = loadKernel(kernelFile, memory, protocol);
  if (initrdFile === undefined) return { kernel, initrd: undefined };
  checkInitrd(initrdFile);
  const initrd = placeInitrd(initrdFile.path, initrdFile.size, memory.size, kernel.end, kernel.initrdAddrMax);
  initrdFile.memory = memory;
  initrdFile.readInto(0, initrd.gpa, initrd.size);
  return { kernel, initrd };
}

/** The command line and every table. Throws ConfigError. */
export function writeTables(
  config: ResolvedConfig,
  { ranges: virtio, pci }: DeviceAddresses,
  memory: MappedGuestMemory,
  { kernel, initrd }: LoadedImages,
): void {
  // Our words first: after a "--" of the user's the kernel reads no more parameters.
  const cmdline = [...virtioParameters(virtio), config.cmdline].join(" ");
  writeCmdline(memory, checkCmdline(cmdline, kernel.cmdlineMax));
  const e820 = e820Entries(memory.size, pci?.ecam);
  writeMpTable(memory, config.cpus, config.pci);
  const rsdpGpa = writeAcpiTables(memory, { cpus: config.cpus, virtio, keyboard: config.keyboard, pci });
  setGeneration(memory);
  writeGdt(memory, entryCode(kernel.format));
  if (kernel.format === "elf-pvh") {
    writeStartInfo(memory, { e820, initrd, rsdpGpa });
  } else {
    writePageTables(memory);
    writeBootParams(memory, { setupHeader: kernel.setupHeader, e820, initrd, rsdpGpa });
  }
}

/** The boot processor's registers; the others wait for their start-up interrupt as KVM made them. */
export function enterLinux([boot]: readonly VcpuFd[], kernel: LoadedKernel): void {
  if (boot === undefined) throw new HostError("A VM needs at least one vCPU");
  const sregs = boot.getSregs();
  setEntrySregs(sregs, kernel.format);
  boot.setSregs(sregs);
  boot.setRegs(entryRegs(kernel.format, kernel.entry));
}
