// Saved memory as memory that other processes have, too: a copy, because what they would share of the file is the file
// itself. Only what is no hole is copied, inside the host's kernel; pages of zeroes take no room.
import { closeDescriptor } from "../sys/descriptors.js";
import { nextData, preadInto, punchHole, sendFile } from "../sys/files.js";
import { sharedMemory } from "../sys/shared-memory.js";
import { MappedGuestMemory } from "./guest-memory.js";

/** Bytes of a saved memory that are as in this file, whatever the pieces before say of them. */
export interface SavedPiece {
  readonly fd: number;
  readonly start: number;
  readonly end: number;
}

/** `size` bytes for one VM and its servers, with what the pieces have. Throws SystemCallError. */
export function copyShared(size: number, pieces: readonly SavedPiece[]): MappedGuestMemory {
  const fd = sharedMemory("vmlet-guest", size);
  let memory: MappedGuestMemory;
  try {
    memory = MappedGuestMemory.mapShared(fd, size, "small");
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  try {
    pieces.forEach((piece, index) => {
      const { start } = piece;
      const end = Math.min(piece.end, size);
      if (start >= end) return;
      // A page that one below has may be zero in this one.
      if (index > 0) punchHole(fd, start, end - start);
      copyData(memory, fd, { ...piece, end });
    });
    return memory;
  } catch (error) {
    memory.unmap();
    throw error;
  }
}

function copyData(memory: MappedGuestMemory, to: number, { fd, start, end }: SavedPiece): void {
  for (let data = nextData(fd, start); data !== undefined && data.start < end; data = nextData(fd, data.end)) {
    const until = Math.min(data.end, end);
    for (let at = data.start; at < until;) {
      let count = sendFile(to, fd, at, until - at);
      // Of a file system whose kernel cannot do that.
      // SAFETY: within the memory that is mapped here; the file's length was checked when it was opened.
      count ??= preadInto(fd, memory.hostAddress + at, until - at, at);
      if (count === 0) throw new Error("A memory file ends before its end");
      at += count;
    }
  }
}
