// A VM's memory as the pieces that go into a file: RAM, then the pages of the command's channel.
import type { Capture } from "../machine/capture.js";
import type { MemoryPiece } from "./memory-file.js";

export type MemoryOf = Pick<Capture, "memory" | "command" | "memoryFiles">;

export function piecesOf({ memory, command, memoryFiles }: MemoryOf): MemoryPiece[] {
  const bases = (offset: number) => memoryFiles.map((fd) => ({ fd, offset }));
  const { hostAddress: address, size: length, sharedFd } = memory;
  const pieces: MemoryPiece[] = [
    sharedFd === undefined
      ? { address, length, bases: bases(0) }
      : { address, length, bases: [{ fd: sharedFd, offset: 0 }], isShared: true },
  ];
  if (command !== undefined) {
    const { hva, size } = command.region;
    pieces.push({ address: hva, length: size, bases: bases(memory.size) });
  }
  return pieces;
}
