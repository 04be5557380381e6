// Identity map of the first 4 GiB with 2 MiB pages: more than the 64-bit boot protocol asks
// for (kernel, zero page and command line). Intel SDM vol. 3 §4.5.
import type { GuestMemory } from "../../devices/contracts.js";
import { BOOT_PD_GPA, BOOT_PDPT_GPA, BOOT_PML4_GPA, MIB, PAGE_SIZE } from "../memory/layout.js";

const PRESENT_WRITABLE = 0x3n;
const PAGE_SIZE_2M = 1n << 7n;
const ENTRIES = 512;
const DIRECTORIES = 4;
/** `bytes` from 0 on that an entry in 64-bit mode can use. */
export const MAPPED_BYTES = DIRECTORIES * ENTRIES * 2 * MIB;

export function writePageTables(memory: GuestMemory): void {
  memory.writeU64(BOOT_PML4_GPA, BigInt(BOOT_PDPT_GPA) | PRESENT_WRITABLE);
  for (let directory = 0; directory < DIRECTORIES; directory++) {
    memory.writeU64(BOOT_PDPT_GPA + directory * 8, BigInt(BOOT_PD_GPA + directory * PAGE_SIZE) | PRESENT_WRITABLE);
  }
  // 2,048 entries in one pass over plain words: 64-bit writes would cost ten times as much.
  const bytes = memory.slice(BOOT_PD_GPA, DIRECTORIES * PAGE_SIZE);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const flags = Number(PRESENT_WRITABLE | PAGE_SIZE_2M);
  for (let i = 0; i < DIRECTORIES * ENTRIES; i++) words[2 * i] = ((i * 2 * MIB) | flags) >>> 0;
}
