// PVH boot: hvm_start_info version 1, one module, the memory map.
// Xen's public start_info.h; the entry takes EBX = hvm_start_info.
import type { GuestMemory } from "../../devices/contracts.js";
import type { E820Entry } from "../memory/e820.js";
import { CMDLINE_GPA, PVH_MEMMAP_GPA, PVH_MODLIST_GPA, PVH_START_INFO_GPA } from "../memory/layout.js";
import type { InitrdRange } from "./initrd.js";

const XEN_HVM_START_MAGIC_VALUE = 0x336ec578;
const SIZEOF_MEMMAP_ENTRY = 24;

export const hvm_start_info = {
  magic: 0,
  version: 4,
  flags: 8,
  nr_modules: 12,
  modlist_paddr: 16,
  cmdline_paddr: 24,
  rsdp_paddr: 32,
  memmap_paddr: 40,
  memmap_entries: 48,
} as const;
const SIZEOF_START_INFO = 56;

export function writeStartInfo(
  memory: GuestMemory,
  params: { e820: readonly E820Entry[]; initrd: InitrdRange | undefined; rsdpGpa: number },
): void {
  const { e820, initrd, rsdpGpa } = params;
  const at = PVH_START_INFO_GPA;
  memory.slice(at, SIZEOF_START_INFO).fill(0);
  memory.writeU32(at + hvm_start_info.magic, XEN_HVM_START_MAGIC_VALUE);
  memory.writeU32(at + hvm_start_info.version, 1);
  memory.writeU64(at + hvm_start_info.cmdline_paddr, BigInt(CMDLINE_GPA));
  memory.writeU64(at + hvm_start_info.rsdp_paddr, BigInt(rsdpGpa));
  memory.writeU64(at + hvm_start_info.memmap_paddr, BigInt(PVH_MEMMAP_GPA));
  memory.writeU32(at + hvm_start_info.memmap_entries, e820.length);
  if (initrd !== undefined) {
    memory.writeU32(at + hvm_start_info.nr_modules, 1);
    memory.writeU64(at + hvm_start_info.modlist_paddr, BigInt(PVH_MODLIST_GPA));
    memory.slice(PVH_MODLIST_GPA, 32).fill(0);
    memory.writeU64(PVH_MODLIST_GPA, BigInt(initrd.gpa));
    memory.writeU64(PVH_MODLIST_GPA + 8, BigInt(initrd.size));
  }
  e820.forEach((entry, i) => {
    const entryAt = PVH_MEMMAP_GPA + i * SIZEOF_MEMMAP_ENTRY;
    memory.writeU64(entryAt, BigInt(entry.gpa));
    memory.writeU64(entryAt + 8, BigInt(entry.size));
    memory.writeU32(entryAt + 16, entry.type);
    memory.writeU32(entryAt + 20, 0);
  });
}
