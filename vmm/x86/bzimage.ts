// bzImage: the setup header of the Linux/x86 boot protocol and where its kernel goes.
// Only the 64-bit boot protocol (2.12, XLF_KERNEL_64) is used; real mode code is never run.
import { KernelImageError } from "../errors.js";
import type { ImageSource } from "./image-source.js";
import { setup_header } from "./boot-params.js";

const HDRS_MAGIC = 0x53726448; // "HdrS"
const MIN_PROTOCOL = 0x20c;
const XLF_KERNEL_64 = 1 << 0;
const SECTOR = 512;
/** Offset of startup_64 in the protected-mode kernel. */
const ENTRY_64 = 0x200;

export interface BzImage {
  /** The setup header's bytes, copied into the zero page as the protocol wants. */
  readonly setupHeader: Uint8Array;
  /** Byte range of the protected-mode kernel in the file. */
  readonly kernelOffset: number;
  readonly kernelSize: number;
  readonly loadGpa: number;
  readonly entry: number;
  /** Bytes from `loadGpa` that the kernel needs until it has found its memory map. */
  readonly initSize: number;
  /** Longest command line without its NUL. */
  readonly cmdlineSize: number;
  /** Highest address that the initrd's last byte may have. */
  readonly initrdAddrMax: number;
}

/** True if the file has the boot protocol's magic. */
export function isBzImage(header: Uint8Array): boolean {
  if (header.length < setup_header.header + 4) return false;
  return new DataView(header.buffer, header.byteOffset).getUint32(setup_header.header, true) === HDRS_MAGIC;
}

/** Checks the setup header of a file that isBzImage has recognised. */
export function parseBzImage(source: ImageSource): BzImage {
  const { path } = source;
  const first = source.read(0, 4 * SECTOR);
  const data = new DataView(first.buffer, first.byteOffset, first.byteLength);
  if (first.length < setup_header.init_size + 4 + 4) {
    throw new KernelImageError(`${path}: ${String(source.size)} bytes are too few for a bzImage`);
  }
  const version = data.getUint16(setup_header.version, true);
  if (version < MIN_PROTOCOL) {
    throw new KernelImageError(
      `${path}: boot protocol ${String(version >> 8)}.${String(version & 0xff)} is too old, needed is 2.12 (Linux 3.8)`,
    );
  }
  if ((data.getUint16(setup_header.xloadflags, true) & XLF_KERNEL_64) === 0) {
    throw new KernelImageError(`${path}: no 64-bit entry point (XLF_KERNEL_64 is not set): a 32-bit kernel`);
  }
  const headerEnd = 0x202 + data.getUint8(0x201);
  // A zero means four, for kernels older than any that gets here.
  const setupSects = data.getUint8(setup_header.setup_sects) || 4;
  const kernelOffset = (setupSects + 1) * SECTOR;
  const kernelSize = data.getUint32(setup_header.syssize, true) * 16;
  const available = source.size - kernelOffset;
  // The file's last paragraph may be padded in syssize but not on disk.
  if (available <= ENTRY_64 || kernelSize > available + 15) {
    throw new KernelImageError(
      `${path}: truncated: the kernel should have ${String(kernelSize)} bytes, the file has ${String(Math.max(0, available))}`,
    );
  }
  const prefAddress = data.getBigUint64(setup_header.pref_address, true);
  if (prefAddress < 0x100000n || prefAddress > 0xffffffffn) {
    throw new KernelImageError(`${path}: preferred address 0x${prefAddress.toString(16)} is not from 1 MiB to 4 GiB`);
  }
  const loadGpa = Number(prefAddress);
  return {
    setupHeader: first.slice(setup_header.setup_sects, Math.min(headerEnd, first.length)),
    kernelOffset,
    kernelSize: Math.min(kernelSize, available),
    loadGpa,
    entry: loadGpa + ENTRY_64,
    initSize: data.getUint32(setup_header.init_size, true),
    cmdlineSize: data.getUint32(setup_header.cmdline_size, true),
    initrdAddrMax: data.getUint32(setup_header.initrd_addr_max, true),
  };
}
