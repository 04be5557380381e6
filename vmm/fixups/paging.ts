// Linear -> guest-physical address through the guest's own page tables, as the processor walks
// them: 4 or 5 levels, large pages, protection, accessed and dirty bits. Intel SDM vol. 3 §4.5.
// Left out on purpose: 32-bit and PAE paging (no 64-bit kernel does anything there that needs a
// fix-up), protection keys, reserved-bit checks above the physical width.
import type { GuestMemory } from "../../devices/contracts.js";
import { GuestFault, PF_VECTOR } from "./guest-fault.js";

const PAGE_MASK = 0xfffn;
const ADDRESS_MASK = 0x000f_ffff_ffff_f000n;
const PTE_P = 1n << 0n;
const PTE_RW = 1n << 1n;
const PTE_US = 1n << 2n;
const PTE_A = 1n << 5n;
const PTE_D = 1n << 6n;
const PTE_PS = 1n << 7n;
const PTE_NX = 1n << 63n;

const PF_PRESENT = 1 << 0;
const PF_WRITE = 1 << 1;
const PF_USER = 1 << 2;
const PF_RESERVED = 1 << 3;
const PF_FETCH = 1 << 4;

const CR0_WP = 1n << 16n;
const CR4_LA57 = 1n << 12n;
const LINEAR_BITS = 48;
const LINEAR_BITS_LA57 = 57;
const CR4_SMEP = 1n << 20n;
const CR4_SMAP = 1n << 21n;
const RFLAGS_AC = 1n << 18n;

/** Bits of a linear address that are translated: four levels of tables, or five. */
export function linearBits(cr4: bigint): number {
  return (cr4 & CR4_LA57) !== 0n ? LINEAR_BITS_LA57 : LINEAR_BITS;
}

/** True if the highest translated bit and all above it are equal. */
export function isCanonical(linear: bigint, cr4: bigint): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(linearBits(cr4), linear)) === linear;
}

/** Control registers that decide a translation. */
export interface PagingState {
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly rflags: bigint;
  /** Privilege level of the access, 0 to 3. */
  readonly cpl: number;
}

export type Access = "read" | "write" | "fetch";

/** Guest-physical address of a linear one. Throws GuestFault (#PF) where the processor would fault. */
export function translate(memory: GuestMemory, state: PagingState, linear: bigint, access: Access): number {
  const isUser = state.cpl === 3;
  const isWrite = access === "write";
  const fault = (bits: number): GuestFault =>
    new GuestFault(
      PF_VECTOR,
      bits | (isWrite ? PF_WRITE : 0) | (isUser ? PF_USER : 0) | (access === "fetch" ? PF_FETCH : 0),
      linear,
    );
  let writable = true;
  let user = true;
  let executable = true;
  let table = state.cr3 & ADDRESS_MASK;
  for (let level = linearBits(state.cr4) === LINEAR_BITS_LA57 ? 5 : 4; ; level--) {
    const shift = BigInt(12 + 9 * (level - 1));
    const at = Number(table + ((linear >> shift) & 0x1ffn) * 8n);
    // Tables outside RAM count as not present: the guest gets a page fault.
    const entry = memory.contains(at, 8) ? memory.readU64(at) : 0n;
    if ((entry & PTE_P) === 0n) throw fault(0);
    writable &&= (entry & PTE_RW) !== 0n;
    user &&= (entry & PTE_US) !== 0n;
    executable &&= (entry & PTE_NX) === 0n;
    const isLeaf = level === 1 || (level <= 3 && (entry & PTE_PS) !== 0n);
    if (level >= 4 && (entry & PTE_PS) !== 0n) throw fault(PF_PRESENT | PF_RESERVED);
    if (isLeaf) {
      if (!allowed(state, access, { writable, user, executable })) throw fault(PF_PRESENT);
      mark(memory, at, entry, isWrite ? PTE_A | PTE_D : PTE_A);
      const offset = (1n << shift) - 1n;
      return Number((entry & ADDRESS_MASK & ~offset) | (linear & offset));
    }
    mark(memory, at, entry, PTE_A);
    table = entry & ADDRESS_MASK;
  }
}

interface Rights {
  readonly writable: boolean;
  readonly user: boolean;
  readonly executable: boolean;
}

function allowed({ cr0, cr4, rflags, cpl }: PagingState, access: Access, rights: Rights): boolean {
  if (cpl === 3) {
    if (!rights.user) return false;
    return access === "write" ? rights.writable : access !== "fetch" || rights.executable;
  }
  if (access === "fetch") return rights.executable && !(rights.user && (cr4 & CR4_SMEP) !== 0n);
  if (rights.user && (cr4 & CR4_SMAP) !== 0n && (rflags & RFLAGS_AC) === 0n) return false;
  return access === "read" || rights.writable || (cr0 & CR0_WP) === 0n;
}

/** Both bits live in the entry's low 16 bits, which other vCPUs may change at the same time. */
function mark(memory: GuestMemory, at: number, entry: bigint, bits: bigint): void {
  if ((entry & bits) === bits) return;
  memory.orU16(at, Number(bits));
  if (memory.isWatched === true) memory.noteWritten?.(at, 2);
}

/** Bytes from `linear` to the end of its page. */
export function bytesInPage(linear: bigint): number {
  return 0x1000 - Number(linear & PAGE_MASK);
}
