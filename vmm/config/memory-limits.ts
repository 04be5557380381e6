// What a guest's memory may be on a host, beyond what a configuration may ask for anywhere.

/** RAM skips the gigabyte of devices below 4 GiB: memory/layout.ts. */
const HOLE_MIB = 1024;
const HOLE_START_MIB = 3 * 1024;
/** Linux keeps 64 bytes for each page of 4 KiB, and fills them in before it starts the first program. */
const BOOKKEEPING = 64 / 4096;

export interface MemoryLimits {
  /** Of a guest-physical address. */
  readonly addressBits: number;
  /** `MiB` that this host can give away just now. */
  readonly availableMib: number;
}

/** Below this, no processor and hardly a host has a limit to ask for: `MiB`. */
export const UNLIMITED_MEMORY_MIB = 16 * 1024;

/** Why a guest with so much memory cannot start, or undefined. */
export function memoryProblem(memoryMib: number, { addressBits, availableMib }: MemoryLimits): string | undefined {
  const most = 2 ** (addressBits - 20) - HOLE_MIB;
  if (memoryMib > HOLE_START_MIB && memoryMib > most) {
    return `Memory (memoryMib) ${String(memoryMib)} MiB: the processor's addresses have ${String(addressBits)} bits, enough for ${String(most)} MiB`;
  }
  const bookkeepingMib = Math.ceil(memoryMib * BOOKKEEPING);
  if (bookkeepingMib <= availableMib) return undefined;
  const limit = Math.floor(availableMib / BOOKKEEPING);
  return `Memory (memoryMib) ${String(memoryMib)} MiB: Linux takes 1/64 of it (${String(bookkeepingMib)} MiB) for its own bookkeeping, this host has ${String(availableMib)} MiB, enough for ${String(limit)} MiB`;
}
