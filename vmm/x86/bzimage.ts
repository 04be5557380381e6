// bzImage: the setup header of the Linux/x86 boot protocol and where its kernel goes.
// Only the 64-bit boot protocol (2.12, XLF_KERNEL_64) is used; real mode code is never run.
import { KernelImageError } from "../errors.js";
import type { ImageSource } from "./image-source.js";
import { BOOT_FLAG, LOADED_HIGH, setup_header } from "./boot-params.js";

const HDRS_MAGIC = 0x53726448; // "HdrS"
const MIN_PROTOCOL = 0x20c;
const XLF_KERNEL_64 = 1 << 0;
const SECTOR = 512;
/** Offset of startup_64 in the protected-mode kernel. */
const ENTRY_64 = 0x200;
/** The jump at 0x200 is a short one, over the header. */
const HEADER_START = 0x202;
const MAX_HEADER_END = HEADER_START + 0x7f;
/** Every protocol from 2.00 on accepts it. */
const MIN_CMDLINE_SIZE = 255;

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
  const refuse = (problem: string): never => {
    throw new KernelImageError(`${path}: ${problem}`);
  };
  const bootFlag = data.getUint16(setup_header.boot_flag, true);
  if (bootFlag !== BOOT_FLAG) refuse(`boot_flag 0x${bootFlag.toString(16)}, needed is 0xaa55`);
  if ((data.getUint8(setup_header.loadflags) & LOADED_HIGH) === 0) {
    refuse("LOADED_HIGH is not set in loadflags: a zImage, for below 1 MiB");
  }
  const headerEnd = HEADER_START + data.getUint8(0x201);
  if (headerEnd < setup_header.init_size + 4 || headerEnd > MAX_HEADER_END) {
    refuse(
      `a setup header that ends at 0x${headerEnd.toString(16)}; from 0x${(setup_header.init_size + 4).toString(16)} to 0x${MAX_HEADER_END.toString(16)} is possible`,
    );
  }
  // Zero means four, in kernels older than any that is accepted here.
  const setupSects = data.getUint8(setup_header.setup_sects) || 4;
  const kernelOffset = (setupSects + 1) * SECTOR;
  const kernelSize = data.getUint32(setup_header.syssize, true) * 16;
  const available = Math.max(0, source.size - kernelOffset);
  if (kernelSize <= ENTRY_64) {
    refuse(`the kernel has ${String(kernelSize)} bytes (syssize): its entry, at ${String(ENTRY_64)}, is behind them`);
  }
  // The file's last paragraph may be padded in syssize but not on disk.
  if (available <= ENTRY_64 || kernelSize > available + 15) {
    refuse(`truncated: the kernel should have ${String(kernelSize)} bytes, the file has ${String(available)}`);
  }
  const payloadEnd =
    data.getUint32(setup_header.payload_offset, true) + data.getUint32(setup_header.payload_length, true);
  if (payloadEnd > kernelSize) {
    refuse(`the compressed kernel ends at ${String(payloadEnd)} (payload_length) of ${String(kernelSize)} bytes`);
  }
  const cmdlineSize = data.getUint32(setup_header.cmdline_size, true);
  if (cmdlineSize < MIN_CMDLINE_SIZE) {
    refuse(`a command line of ${String(cmdlineSize)} bytes (cmdline_size); ${String(MIN_CMDLINE_SIZE)} is the least`);
  }
  const prefAddress = data.getBigUint64(setup_header.pref_address, true);
  if (prefAddress < 0x100000n || prefAddress > 0xffffffffn) {
    throw new KernelImageError(`${path}: preferred address 0x${prefAddress.toString(16)} is not from 1 MiB to 4 GiB`);
  }
  const loadGpa = Number(prefAddress);
  const alignment = data.getUint32(setup_header.kernel_alignment, true);
  if (alignment === 0 || !Number.isInteger(Math.log2(alignment)) || loadGpa % alignment !== 0) {
    refuse(`kernel_alignment 0x${alignment.toString(16)} is not a power of two that divides pref_address`);
  }
  return {
    setupHeader: first.slice(setup_header.setup_sects, Math.min(headerEnd, first.length)),
    kernelOffset,
    kernelSize: Math.min(kernelSize, available),
    loadGpa,
    entry: loadGpa + ENTRY_64,
    initSize: data.getUint32(setup_header.init_size, true),
    cmdlineSize,
    initrdAddrMax: data.getUint32(setup_header.initrd_addr_max, true),
  };
}
