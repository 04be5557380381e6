// Guest memory by linear address, for the fix-ups: every page is translated before any byte is
// written, so that a fault leaves memory as it was.
import type { GuestMemory } from "../../devices/contracts.js";
import { bytesInPage, isCanonical, translate, type Access, type PagingState } from "./paging.js";
import { GuestFault, GP_VECTOR } from "./guest-fault.js";

interface Piece {
  readonly gpa: number;
  readonly length: number;
}

const LINEAR_MASK = (1n << 64n) - 1n;

/** Throws GuestFault for a page that may not be accessed. Memory outside RAM is #GP: fix-ups reach no device. */
function pieces(memory: GuestMemory, state: PagingState, linear: bigint, length: number, access: Access): Piece[] {
  const found: Piece[] = [];
  for (let done = 0; done < length;) {
    const at = (linear + BigInt(done)) & LINEAR_MASK;
    if (!isCanonical(at, state.cr4)) throw new GuestFault(GP_VECTOR, 0);
    const size = Math.min(bytesInPage(at), length - done);
    const gpa = translate(memory, state, at, access);
    if (!memory.contains(gpa, size)) throw new GuestFault(GP_VECTOR, 0);
    found.push({ gpa, length: size });
    done += size;
  }
  return found;
}

/** A copy of `length` bytes. */
export function readLinear(memory: GuestMemory, state: PagingState, linear: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  for (const piece of pieces(memory, state, linear, length, "read")) {
    bytes.set(memory.slice(piece.gpa, piece.length), done);
    done += piece.length;
  }
  return bytes;
}

export function writeLinear(memory: GuestMemory, state: PagingState, linear: bigint, bytes: Uint8Array): void {
  let done = 0;
  for (const piece of pieces(memory, state, linear, bytes.length, "write")) {
    memory.slice(piece.gpa, piece.length).set(bytes.subarray(done, done + piece.length));
    if (memory.isWatched === true) memory.noteWritten?.(piece.gpa, piece.length);
    done += piece.length;
  }
}

/** Faults as a write would, without writing: for instructions that must not fail half-way. */
export function probeWrite(memory: GuestMemory, state: PagingState, linear: bigint, length: number): void {
  pieces(memory, state, linear, length, "write");
}

/** Little-endian 64-bit value. */
export function readLinearU64(memory: GuestMemory, state: PagingState, linear: bigint): bigint {
  const bytes = readLinear(memory, state, linear, 8);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}
