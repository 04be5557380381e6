// struct boot_params, the "zero page", by kernel field name.
// Linux/x86 boot protocol; offsets as in <asm/bootparam.h>.
import type { GuestMemory } from "../../devices/contracts.js";
import type { E820Entry } from "../memory/e820.js";
import { BOOT_PARAMS_GPA, CMDLINE_GPA, PAGE_SIZE } from "../memory/layout.js";
import type { InitrdRange } from "./initrd.js";

/** Offsets in boot_params; setup_header's fields lie where they are in a bzImage. */
export const boot_params = {
  acpi_rsdp_addr: 0x070,
  ext_ramdisk_image: 0x0c0,
  ext_ramdisk_size: 0x0c4,
  ext_cmd_line_ptr: 0x0c8,
  e820_entries: 0x1e8,
  hdr: 0x1f1,
  e820_table: 0x2d0,
} as const;

export const setup_header = {
  setup_sects: 0x1f1,
  syssize: 0x1f4,
  vid_mode: 0x1fa,
  boot_flag: 0x1fe,
  header: 0x202,
  version: 0x206,
  type_of_loader: 0x210,
  loadflags: 0x211,
  ramdisk_image: 0x218,
  ramdisk_size: 0x21c,
  /** heap_end_ptr, ext_loader_ver, ext_loader_type: 4 bytes. */
  heap_end_ptr: 0x224,
  cmd_line_ptr: 0x228,
  initrd_addr_max: 0x22c,
  kernel_alignment: 0x230,
  xloadflags: 0x236,
  cmdline_size: 0x238,
  hardware_subarch: 0x23c,
  hardware_subarch_data: 0x240,
  payload_offset: 0x248,
  payload_length: 0x24c,
  setup_data: 0x250,
  pref_address: 0x258,
  init_size: 0x260,
} as const;

const SIZEOF_E820_ENTRY = 20;
const E820_MAX_ENTRIES_ZEROPAGE = 128;
export const LOADED_HIGH = 1 << 0;
/** No assigned boot loader id. */
const UNDEFINED_LOADER = 0xff;
export const BOOT_FLAG = 0xaa55;
const HDRS_MAGIC = 0x53726448;
/** For a kernel without a setup header of its own (an ELF file). */
const VERSION_2_12 = 0x20c;

export interface BootParams {
  /** From a bzImage; an ELF kernel gets a header made up here. */
  readonly setupHeader: Uint8Array | undefined;
  readonly e820: readonly E820Entry[];
  readonly initrd: InitrdRange | undefined;
  readonly rsdpGpa: number;
}

/** Writes the zero page; the command line is at CMDLINE_GPA already. */
export function writeBootParams(memory: GuestMemory, params: BootParams): void {
  const page = memory.slice(BOOT_PARAMS_GPA, PAGE_SIZE);
  page.fill(0);
  const data = new DataView(page.buffer, page.byteOffset, page.byteLength);
  if (params.setupHeader !== undefined) {
    page.set(params.setupHeader, boot_params.hdr);
  } else {
    data.setUint16(setup_header.boot_flag, BOOT_FLAG, true);
    data.setUint32(setup_header.header, HDRS_MAGIC, true);
    data.setUint16(setup_header.version, VERSION_2_12, true);
    data.setUint32(setup_header.kernel_alignment, 0x20_0000, true);
  }
  data.setUint16(setup_header.vid_mode, 0xffff, true);
  data.setUint8(setup_header.type_of_loader, UNDEFINED_LOADER);
  data.setUint8(setup_header.loadflags, LOADED_HIGH);
  data.setUint32(setup_header.cmd_line_ptr, CMDLINE_GPA, true);
  data.setUint32(setup_header.ramdisk_image, (params.initrd?.gpa ?? 0) >>> 0, true);
  data.setUint32(setup_header.ramdisk_size, (params.initrd?.size ?? 0) >>> 0, true);
  // A boot loader's fields, whatever the file has there: no heap, a PC, no setup_data.
  data.setUint32(setup_header.heap_end_ptr, 0, true);
  data.setUint32(setup_header.hardware_subarch, 0, true);
  data.setBigUint64(setup_header.hardware_subarch_data, 0n, true);
  data.setBigUint64(setup_header.setup_data, 0n, true);
  // Spares the kernel its search through the BIOS area.
  data.setBigUint64(boot_params.acpi_rsdp_addr, BigInt(params.rsdpGpa), true);
  const entries = params.e820.slice(0, E820_MAX_ENTRIES_ZEROPAGE);
  data.setUint8(boot_params.e820_entries, entries.length);
  entries.forEach((entry, i) => {
    const at = boot_params.e820_table + i * SIZEOF_E820_ENTRY;
    data.setBigUint64(at, BigInt(entry.gpa), true);
    data.setBigUint64(at + 8, BigInt(entry.size), true);
    data.setUint32(at + 16, entry.type, true);
  });
}
