// A directory's contents: blocks that each begin with their entries, in the order of the names' bytes, and go on with
// the names. The first name's place also tells how many entries a block has.
import { BLOCK_SIZE, DIRENT_SIZE } from "./format.js";

export interface Dirent {
  readonly name: string;
  readonly nid: number;
  readonly type: number;
}

/** `bytes` of a directory with these names, "." and ".." among them; the last block need not be whole. */
export function directorySize(sortedNames: readonly string[]): number {
  let size = 0;
  let block = 0;
  for (const { length } of sortedNames) {
    if (block + DIRENT_SIZE + length > BLOCK_SIZE) {
      size += BLOCK_SIZE;
      block = 0;
    }
    block += DIRENT_SIZE + length;
  }
  return size + block;
}

/** `target`: zeroes, of the length that `directorySize` has told. */
export function writeDirectory(target: Buffer, sorted: readonly Dirent[]): void {
  let start = 0;
  for (let first = 0; first < sorted.length; start += BLOCK_SIZE) {
    let next = first;
    let used = 0;
    for (; next < sorted.length; next++) {
      const length = DIRENT_SIZE + (sorted[next]?.name.length ?? 0);
      if (used + length > BLOCK_SIZE) break;
      used += length;
    }
    let nameAt = DIRENT_SIZE * (next - first);
    for (const [index, { name, nid, type }] of sorted.slice(first, next).entries()) {
      const at = start + DIRENT_SIZE * index;
      target.writeUInt32LE(nid >>> 0, at);
      target.writeUInt32LE(Math.floor(nid / 2 ** 32), at + 4);
      target.writeUInt16LE(nameAt, at + 8);
      target.writeUInt8(type, at + 10);
      target.write(name, start + nameAt, "latin1");
      nameAt += name.length;
    }
    first = next;
  }
}
